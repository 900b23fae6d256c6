"""The configuration: defaults, files, and what it refuses."""

import pytest
import torch

from tallyformer.config.presets import PRESETS
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM


def test_the_default_is_the_flagship_of_50915840_parameters():
    with torch.device("meta"):
        model = TallyFormerForCausalLM(TallyFormerConfig())
    assert sum(p.numel() for p in model.parameters()) == 50_915_840


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_configuration_of_about_51_million(preset):
    with torch.device("meta"):
        model = TallyFormerForCausalLM(TallyFormerConfig(**PRESETS[preset]))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(50.9e6, rel=0.001)


def test_a_saved_configuration_loads_as_it_was(tmp_path):
    config = TallyFormerConfig(
        vocab_size=99,
        norm_type="layernorm",
        norm_bias=True,
        norm_placement="post",
        norm_eps=1e-5,
        mlp_type="swiglu",
        rope_layout="half",
        rope_theta=500.0,
        dropout=0.25,
        bos_token_id=None,
        eos_token_id=[3, 4],
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    config.save_pretrained(tmp_path)
    again = TallyFormerConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert again.rope_theta == 500.0
    assert (again.bos_token_id, again.eos_token_id, again.pad_token_id) == (None, [3, 4], None)


def test_the_rotary_base_is_given_alone_or_in_transformers_form():
    alone = TallyFormerConfig(rope_theta=500.0)
    inside = TallyFormerConfig(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert alone.rope_parameters == inside.rope_parameters
    assert TallyFormerConfig().rope_theta == 10_000.0


def test_the_callers_dictionary_is_not_written_to():
    given = {"rope_type": "default"}
    TallyFormerConfig(rope_parameters=given)
    assert given == {"rope_type": "default"}


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("norm_type", "rms", "Use one of ('rmsnorm', 'layernorm')"),
        ("norm_placement", "sandwich", "Use one of ('pre', 'post')"),
        ("mlp_type", "relu", "Use one of ('gelu', 'swiglu')"),
        ("rope_layout", "neox", "Use one of ('interleaved', 'half')"),
        ("norm_bias", True, "Set norm_bias=False or norm_type='layernorm'"),
        ("vocab_size", 0, "Use a whole number >= 1"),
        ("hidden_size", -8, "Use a whole number >= 1"),
        ("hidden_size", 512.0, "Use a whole number >= 1"),
        ("num_hidden_layers", True, "Use a whole number >= 1"),
        ("num_attention_heads", 7, "Choose a divisor of hidden_size"),
        ("num_attention_heads", 512, "Choose an even head size"),
        ("intermediate_size", 0, "Use a whole number >= 1"),
        ("max_position_embeddings", 0, "Use a whole number >= 1"),
        ("dropout", 1.0, "Use 0.0 to switch dropout off"),
        ("dropout", -0.1, "Use 0.0 to switch dropout off"),
        ("norm_eps", -1e-8, "Use a number >= 0"),
        ("initializer_range", float("nan"), "Use a number >= 0"),
        ("rope_theta", 0.0, "Use a number > 0"),
    ],
)
def test_a_wrong_field_is_named_with_its_fix(field, value, fix):
    with pytest.raises(ValueError) as error:
        TallyFormerConfig(**{field: value})
    assert f"TallyFormerConfig.{field}" in str(error.value)
    assert fix in str(error.value)


def test_two_rotary_bases_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"rope_theta: 5.0 contradicts .* Give one of them"):
        TallyFormerConfig(rope_theta=5.0, rope_parameters={"rope_theta": 6.0})


def test_an_unknown_rotary_type_is_refused():
    config = TallyFormerConfig(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4})
    with pytest.raises(ValueError, match=r"'spiral' is unknown. Use 'default' or one of"):
        TallyFormerForCausalLM(config)
