"""Counts that a recipe can ask for before anything is built."""

import itertools
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.flops import count_parameters, flops_per_token
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

CHOICES = {
    "norm": [("rmsnorm", False), ("layernorm", False), ("layernorm", True)],
    "mlp_type": ["gelu", "swiglu"],
    "attention_bias": [False, True],
    "proj_bias": [False, True],
    "mlp_in_bias": [False, True],
    "mlp_out_bias": [False, True],
    "tie_word_embeddings": [False, True],
}


@pytest.mark.parametrize("values", list(itertools.product(*CHOICES.values())))
def test_the_count_is_that_of_the_real_model(values):
    fields = dict(zip(CHOICES, values, strict=True))
    norm_type, norm_bias = fields.pop("norm")
    config = TallyFormerConfig(
        vocab_size=31,
        hidden_size=12,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=7,
        norm_type=norm_type,
        norm_bias=norm_bias,
        **fields,
    )
    with torch.device("meta"):
        model = TallyFormerForCausalLM(config)
    assert count_parameters(config) == sum(p.numel() for p in model.parameters())
    assert count_parameters(config.to_dict()) == count_parameters(config)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match=r"no field 'norm_bias'. Pass a TallyFormerConfig"):
        count_parameters({"vocab_size": 1, "hidden_size": 1})


@pytest.mark.parametrize("backward", [False, True])
def test_flops_agree_with_torchs_own_counter(build, ids, backward):
    model = build("eager", num_hidden_layers=3)
    context = ids.shape[1]
    counter = FlopCounterMode(display=False)
    with counter:
        logits = model(ids).logits
        if backward:
            logits.sum().backward()
    # Eager attention computes every score, the formula the causal half: the difference is known.
    whole = 3 * 4 * 32 * (context - (context + 1) / 2) * (3 if backward else 1)
    ours = flops_per_token(model.config, context, backward=backward)
    assert counter.get_total_flops() / ids.numel() == pytest.approx(ours + whole, rel=1e-9)


def test_a_context_below_one_is_refused():
    with pytest.raises(ValueError, match="context 0 is not a length"):
        flops_per_token(TallyFormerConfig(), 0)


def test_flops_load_without_torch():
    code = "import sys, tallyformer.model.flops; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
