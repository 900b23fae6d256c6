"""TallyFormer: raw text to a deployed finance chat model.

What can go wrong is in `tallyformer.errors`. The other public names load on first use, so
`import tallyformer` is quick and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallyformer import errors
from tallyformer.lazy_names import lazy_names

if TYPE_CHECKING:
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.sampling_params import SamplingParams
    from tallyformer.model.configuration_tallyformer import TallyFormerConfig
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
    from tallyformer.tokenizer.tokenizer import Tokenizer

__all__ = [
    "LLM",
    "SamplingParams",
    "TallyFormerConfig",
    "TallyFormerForCausalLM",
    "Tokenizer",
    "errors",
]
__version__ = "0.1.0"

__getattr__ = lazy_names(
    __name__,
    {
        "LLM": "tallyformer.inference.llm",
        "SamplingParams": "tallyformer.inference.sampling_params",
        "TallyFormerConfig": "tallyformer.model.configuration_tallyformer",
        "TallyFormerForCausalLM": "tallyformer.model.modeling_tallyformer",
        "Tokenizer": "tallyformer.tokenizer.tokenizer",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
