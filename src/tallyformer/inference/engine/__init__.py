"""The life of a request, from ids to pieces of text.

    Engine.add ── Sequence (ids, settings, random numbers, text) ── waiting
    Engine.step ─┬ Scheduler.schedule   who is computed: prefill of new ones, decode of running ones
                 ├ Runner.compute       logits of what may follow; keys and values are kept
                 ├ Runner.choose        logits to one id each
                 ├ Sequence.push        ids to text that is certain, stop strings, end
                 └ Scheduler.settle     the finished leave, full windows go back to waiting
    EngineClient                        several callers share one engine (`LLM` is one of them)

`TorchRunner`, with its cache and sampler, is the only part that loads torch.
"""
