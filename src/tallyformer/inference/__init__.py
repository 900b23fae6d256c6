"""Inference: sampling parameters, sampler, stop strings, batched generation, `LLM`.

    LLM.generate ── Request (one prompt's state) ── Batch (sliding windows) ── RowCache; sampler
                        └── TextAssembler (ids to text, stop strings)

Nothing is imported here, so that `tallyformer.inference.sampling_params` loads without torch.
"""
