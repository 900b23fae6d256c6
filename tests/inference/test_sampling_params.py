from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.errors import InvalidRequestError, TallyFormerError
from tallyformer.inference.sampling_params import SamplingParams


def test_defaults_are_the_published_ones() -> None:
    params = SamplingParams()
    assert (params.max_tokens, params.temperature, params.top_k, params.top_p) == (256, 1.0, 0, 1.0)
    assert (params.min_p, params.mode, params.seed, params.ignore_eos) == (
        0.0,
        "combined",
        None,
        False,
    )
    assert params.stop_strings == ()


@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("max_tokens", 0, "a whole number of at least 1"),
        ("max_tokens", 2.5, "a whole number of at least 1"),
        ("max_tokens", True, "a whole number of at least 1"),
        ("temperature", -0.1, "a number of at least 0"),
        ("temperature", float("nan"), "a number of at least 0"),
        ("temperature", float("inf"), "a number of at least 0"),
        ("temperature", "hot", "a number of at least 0"),
        ("top_k", -1, "a whole number from 0 to"),
        ("top_k", 2**31, "a whole number from 0 to 2147483647"),
        ("repetition_penalty", 1e-30, "a number of at least 0.01, at most 100"),
        ("top_p", 0.0, "a number above 0, at most 1"),
        ("top_p", 1.01, "a number above 0, at most 1"),
        ("min_p", 1.5, "a number of at least 0, at most 1"),
        ("frequency_penalty", 2.1, "a number of at least -2, at most 2"),
        ("presence_penalty", -2.1, "a number of at least -2, at most 2"),
        ("mode", "both", "one of combined, independent"),
        ("seed", -1, "a whole number from 0 to"),
        ("seed", 2**63, "a whole number from 0 to"),
        ("stop", ["a", ""], "none of them empty"),
        ("stop", 3, "none of them empty"),
        ("stop_token_ids", [-1], "ids of at least 0"),
        ("stop_token_ids", "12", "ids of at least 0"),
        ("ignore_eos", 1, "true or false"),
    ],
)
def test_an_error_names_field_value_and_range(field: str, value: object, limits: str) -> None:
    with pytest.raises(TallyFormerError) as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith(f"{field}: ") and limits in message and repr(value) in message
    assert isinstance(caught.value, ValueError) and caught.value.exit_status == 2


def test_numbers_of_numpy_are_numbers() -> None:
    params = SamplingParams(max_tokens=np.int64(3), temperature=np.float32(0.5), seed=np.int32(1))  # type: ignore[arg-type]
    assert (params.max_tokens, params.temperature, params.seed) == (3, 0.5, 1)
    assert type(params.max_tokens) is int and type(params.temperature) is float


def test_fields_are_keyword_only_and_frozen() -> None:
    with pytest.raises(TypeError):
        SamplingParams(5)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().top_k = 3  # type: ignore[misc]


def test_replace_checks_again_and_keeps_the_rest() -> None:
    params = dataclasses.replace(SamplingParams(stop="END", seed=4), top_k=7)
    assert (params.stop_strings, params.seed, params.top_k) == (("END",), 4, 7)
    with pytest.raises(ValueError, match="top_k"):
        dataclasses.replace(params, top_k=-3)


def test_sampling_params_and_the_package_load_no_torch() -> None:
    code = (
        "import sys, tallyformer; tallyformer.SamplingParams(top_k=1); "
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


_ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**5000),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.text(),
    st.binary(),
    st.lists(st.one_of(st.integers(), st.text(), st.none())),
    st.dictionaries(st.integers(), st.integers()),
    st.sampled_from([np.array([1, 2]), np.array(0.5), np.nan, torch.ones(2), torch.tensor(1.0)]),
    st.builds(object),
)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(SamplingParams)])
@given(value=_ANYTHING)
def test_anything_is_taken_as_it_is_or_refused_in_one_short_line(field: str, value: Any) -> None:
    try:
        SamplingParams(**{field: value})
    except InvalidRequestError as error:
        assert str(error).startswith(f"{field}: must be ")
        assert "\n" not in str(error) and len(str(error)) < 200
