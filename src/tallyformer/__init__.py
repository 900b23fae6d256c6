"""TallyFormer: raw text to a deployed finance chat model.

The public names load on first use, so `import tallyformer` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.sampling_params import SamplingParams
    from tallyformer.model.configuration_tallyformer import TallyFormerConfig
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
    from tallyformer.tokenizer.tokenizer import Tokenizer

__all__ = ["LLM", "SamplingParams", "TallyFormerConfig", "TallyFormerForCausalLM", "Tokenizer"]
__version__ = "0.1.0"

_HOME = {
    "LLM": "tallyformer.inference.llm",
    "SamplingParams": "tallyformer.inference.sampling_params",
    "TallyFormerConfig": "tallyformer.model.configuration_tallyformer",
    "TallyFormerForCausalLM": "tallyformer.model.modeling_tallyformer",
    "Tokenizer": "tallyformer.tokenizer.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tallyformer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
