"""A model's shape, read without torch, says all that decides its arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from tallyformer.model.config_fields import UnsupportedModelError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.llama import to_llama
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.shape import shape_of

from .reference_forward import forward

NO_IDS = {"bos_token_id": None, "pad_token_id": None}
_THETA = st.sampled_from([10_000.0, 500_000.0, 1234.5])
_FACTOR = st.sampled_from([1.0, 2.0, 8.0, 32.5])


def _scaled() -> st.SearchStrategy[dict[str, Any]]:
    first = st.sampled_from([16, 64, 8192])
    plain = st.fixed_dictionaries({"rope_type": st.just("default"), "rope_theta": _THETA})
    linear = st.fixed_dictionaries(
        {"rope_type": st.just("linear"), "rope_theta": _THETA, "factor": _FACTOR}
    )
    llama3 = st.fixed_dictionaries(
        {
            "rope_type": st.just("llama3"),
            "rope_theta": _THETA,
            "factor": _FACTOR,
            "low_freq_factor": st.sampled_from([0.5, 1.0]),
            "high_freq_factor": st.sampled_from([2.0, 4.0]),
            "original_max_position_embeddings": first,
        }
    )
    yarn = st.fixed_dictionaries(
        {
            "rope_type": st.just("yarn"),
            "rope_theta": _THETA,
            "factor": _FACTOR,
            "original_max_position_embeddings": first,
        },
        optional={
            "attention_factor": st.sampled_from([0.5, 1.25]),
            "beta_fast": st.sampled_from([16.0, 32.0]),
            "beta_slow": st.sampled_from([0.5, 2.0]),
            "mscale": st.sampled_from([0.7, 1.0]),
            "mscale_all_dim": st.sampled_from([0.7, 1.0]),
            "truncate": st.booleans(),
        },
    )
    return st.one_of(plain, linear, llama3, yarn)


_SIZES = {
    "vocab_size": st.sampled_from([17, 33]),
    "num_hidden_layers": st.integers(1, 2),
    "num_attention_heads": st.sampled_from([2, 4]),
    "intermediate_size": st.sampled_from([24, 40]),
    "max_position_embeddings": st.sampled_from([32, 128]),
    "tie_word_embeddings": st.booleans(),
    "eos_token_id": st.sampled_from([2, [2, 3], None]),
    "rope_parameters": _scaled(),
}


@st.composite
def ours(draw: st.DrawFn) -> TallyFormerConfig:
    norm = draw(st.sampled_from(["rmsnorm", "layernorm"]))
    drawn = draw(
        st.fixed_dictionaries(
            {
                **_SIZES,
                "norm_placement": st.sampled_from(["pre", "post"]),
                "norm_eps": st.sampled_from([1e-8, 1e-3]),
                "mlp_type": st.sampled_from(["gelu", "swiglu"]),
                "attention_bias": st.booleans(),
                "proj_bias": st.booleans(),
                "mlp_in_bias": st.booleans(),
                "mlp_out_bias": st.booleans(),
                "rope_layout": st.sampled_from(["interleaved", "half"]),
                "norm_bias": st.booleans() if norm == "layernorm" else st.just(False),
            }
        )
    )
    return TallyFormerConfig(
        **drawn, norm_type=norm, hidden_size=16, initializer_range=0.3, **NO_IDS
    )


@st.composite
def llamas(draw: st.DrawFn) -> LlamaConfig:
    drawn = draw(
        st.fixed_dictionaries(
            {
                **_SIZES,
                "num_key_value_heads": st.sampled_from([None, 1, 2]),
                "head_dim": st.sampled_from([None, 6, 8]),
                "attention_bias": st.booleans(),
                "mlp_bias": st.booleans(),
                "rms_norm_eps": st.sampled_from([1e-6, 1e-3]),
            }
        )
    )
    return LlamaConfig(**drawn, hidden_size=16, initializer_range=0.3, **NO_IDS)


def saved(config: Any) -> dict[str, Any]:
    """A configuration as a folder's config.json holds it."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return values


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    is_ours = isinstance(config, TallyFormerConfig)
    model = (TallyFormerForCausalLM if is_ours else LlamaForCausalLM)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(config=st.one_of(ours(), llamas()))
def test_a_forward_pass_written_from_the_shape_alone_gives_the_models_logits(config: Any) -> None:
    model, shape = model_of(config), shape_of(saved(config))
    ids = list(range(1, 13))
    with torch.no_grad():
        wanted_TV = model(torch.tensor([ids])).logits[0].numpy()

    got_TV = forward(shape, weights_of(model), ids)

    np.testing.assert_allclose(got_TV, wanted_TV, atol=2e-4, rtol=2e-4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(config=st.one_of(ours(), llamas()))
def test_tensors_frequencies_and_sizes_are_those_of_the_model(config: Any) -> None:
    shape = shape_of(saved(config))
    with torch.device("meta"):
        is_ours = isinstance(config, TallyFormerConfig)
        empty = (TallyFormerForCausalLM if is_ours else LlamaForCausalLM)(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    base = empty.model
    rotary = type(base.rotary if is_ours else base.rotary_emb)(config)

    assert shape.tensors() == wanted
    assert shape.attention_scaling == rotary.attention_scaling
    np.testing.assert_allclose(shape.inv_freq, rotary.inv_freq.numpy(), rtol=5e-7)
    assert all(float(np.float32(number)) == number for number in shape.inv_freq)
    assert shape.context == config.max_position_embeddings
    eos = config.eos_token_id
    assert shape.eos_ids == tuple(eos if isinstance(eos, list) else [] if eos is None else [eos])


@pytest.mark.parametrize("config", [TallyFormerConfig(), LlamaConfig()])
def test_what_a_config_leaves_out_is_what_transformers_takes_for_it(config: Any) -> None:
    bare, full = {"model_type": config.model_type}, config.to_dict()

    assert shape_of(bare) == shape_of(full)


def test_a_llama_made_of_ours_has_the_same_arithmetic() -> None:
    config = TallyFormerConfig(
        **{"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 24, "mlp_type": "swiglu", "rope_layout": "half"},
        **{"proj_bias": False, "mlp_out_bias": False, **NO_IDS},
    )
    model = model_of(config)
    llama = to_llama(model)

    ours_TV = forward(shape_of(saved(config)), weights_of(model), [1, 2, 3])
    llama_TV = forward(shape_of(saved(llama.config)), weights_of(llama), [1, 2, 3])

    np.testing.assert_allclose(ours_TV, llama_TV, atol=1e-5)


def llama_json(**changes: Any) -> dict[str, Any]:
    plain = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2}
    return {**plain, "max_position_embeddings": 64, **changes}


@pytest.mark.parametrize(
    "old",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": None},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_scaling": {"type": "yarn", "factor": 2.0}, "rope_theta": 900},
    ],
)
def test_older_forms_of_the_rotary_settings_mean_what_they_mean_in_transformers(
    old: dict[str, Any],
) -> None:
    values = llama_json(**old)
    config = LlamaConfig.from_dict(dict(values))
    with torch.device("meta"):
        kind = type(LlamaForCausalLM(config).model.rotary_emb)

    shape = shape_of(values)

    np.testing.assert_allclose(shape.inv_freq, kind(config).inv_freq.numpy(), rtol=5e-7)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (GPT2Config().to_dict(), "model_type: 'gpt2'"),
        ({}, "model_type: None"),
        (llama_json(model_type=["llama"]), "model_type"),
        (llama_json(hidden_act="gelu"), "hidden_act: 'gelu'"),
        (llama_json(quantization_config={"bits": 4}), "quantization_config"),
        (llama_json(vocab_size="many"), "vocab_size: 'many'"),
        (llama_json(vocab_size=True), "vocab_size: True"),
        (llama_json(num_key_value_heads=0), "num_key_value_heads: 0"),
        (llama_json(num_attention_heads=3), "num_attention_heads: 3"),
        (llama_json(num_attention_heads=6, hidden_size=18), "head size: 3"),
        (llama_json(attention_bias="no"), "attention_bias: 'no'"),
        (llama_json(rms_norm_eps=float("nan")), "rms_norm_eps: nan"),
        (llama_json(rope_parameters=[1]), r"rope_parameters: \[1\]"),
        (llama_json(rope_parameters={"full": {"rope_theta": 1.0}}), "from layer to layer"),
        (llama_json(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "'dynamic'"),
        (llama_json(rope_parameters={"rope_type": "linear"}), "factor: None"),
        (llama_json(rope_parameters={"rope_theta": 0}), "rope_theta: 0"),
        (llama_json(rope_parameters={"rope_theta": None}), "rope_theta: None"),
        (llama_json(rope_parameters={"rope_theta": 10**400}), "out of range"),
        (llama_json(rope_parameters={"rope_theta": 1e-60}), "out of range"),
        (
            llama_json(
                rope_parameters={
                    "rope_type": "yarn",
                    "factor": 2.0,
                    "original_max_position_embeddings": 10**400,
                }
            ),
            "out of range",
        ),
        (llama_json(rope_theta=5.0, rope_parameters={"rope_theta": 6.0}), "contradicts"),
        (llama_json(rope_scaling={"type": ["linear"]}), "rope_type"),
        (llama_json(eos_token_id=[1, "two"]), "eos_token_id: 'two'"),
    ],
)
def test_another_kind_of_model_has_a_reason_in_place_of_a_shape(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        shape_of(values)


def test_a_shape_is_read_without_torch_and_transformers() -> None:
    script = (
        "import sys\nfrom tallyformer.model.shape import shape_of\n"
        "shape_of({'model_type': 'tallyformer'})\n"
        "print(sorted({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )

    assert done.stdout.strip() == "[]", done.stderr
