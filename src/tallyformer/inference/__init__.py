"""Inference: sampling parameters, stop strings, the engine, `LLM`.

    LLM, AsyncLLM (texts and conversations) ── EngineClient ── Engine (see inference/engine/)
                                                               ├── Scheduler, Sequence
                                                               └── Runner (logits, draws)

The public names load on first use, so that `tallyformer.inference.sampling_params` loads without
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallyformer.lazy_names import lazy_names

if TYPE_CHECKING:
    from tallyformer.inference.async_llm import AsyncLLM
    from tallyformer.inference.conversation import Chat
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.outputs import Output, Piece
    from tallyformer.inference.sampling_params import SamplingParams

__all__ = ["LLM", "AsyncLLM", "Chat", "Output", "Piece", "SamplingParams"]

__getattr__ = lazy_names(
    __name__,
    {
        "AsyncLLM": "tallyformer.inference.async_llm",
        "LLM": "tallyformer.inference.llm",
        "Chat": "tallyformer.inference.conversation",
        "Output": "tallyformer.inference.outputs",
        "Piece": "tallyformer.inference.outputs",
        "SamplingParams": "tallyformer.inference.sampling_params",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
