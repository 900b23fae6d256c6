"""The life of a request, from ids to pieces of text.

    Engine.add ── Sequence (ids, settings, random numbers) ── waiting
    Engine.step ─┬ Scheduler.schedule   who is computed, and how far: decode, then prefill
                 ├ Sequence.work        that in the runner's words; guesses, forced ids
                 ├ Runner.compute       logits of what may follow; keys and values are kept
                 ├ Sequence.rows        what decides the draw: settings, random number, masks
                 ├ Runner.choose        logits to one id each
                 ├ Sequence.take        ids to text that is certain, stop strings, end (AnswerText)
                 └ Scheduler.settle     the finished leave, full windows go back to waiting
    EngineClient                        several callers share one engine (`LLM`, `AsyncLLM`)

`TorchRunner`, with its cache and sampler, is the only part that loads torch.
"""
