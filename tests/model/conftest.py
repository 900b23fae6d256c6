"""Tiny real models: every law is tested on the classes that ship, in milliseconds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "dropout": 0.0,
    # Ten times the usual spread: with 0.02 attention is almost uniform, and a wrong mask or
    # a wrong rotation would hide below the tolerance.
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "tally": {},
    "llama": {
        "mlp_type": "swiglu",
        "proj_bias": False,
        "mlp_out_bias": False,
        "rope_layout": "half",
    },
    "post": {"norm_type": "layernorm", "norm_bias": True, "norm_placement": "post"},
    "every bias, untied": {
        "norm_type": "layernorm",
        "mlp_type": "swiglu",
        "attention_bias": True,
        "mlp_in_bias": True,
        "tie_word_embeddings": False,
    },
}


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each kind of model in turn."""
    return SHAPES[request.param]


@pytest.fixture
def shapes() -> dict[str, dict[str, Any]]:
    """All kinds of model by name."""
    return SHAPES


@pytest.fixture
def build() -> Callable[..., TallyFormerForCausalLM]:
    """A function that makes a tiny model in evaluation mode, the same one each time."""

    def make(attention: str = "sdpa", **overrides: Any) -> TallyFormerForCausalLM:
        torch.manual_seed(0)
        config = TallyFormerConfig(**{**TINY, **overrides})
        config._attn_implementation = attention
        model = TallyFormerForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero at the start, which would hide a bias left out
                torch.nn.init.normal_(parameter, std=0.2)
        return model

    return make


@pytest.fixture
def ids() -> torch.Tensor:
    """Three rows of eleven tokens, none of them special."""
    return torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))
