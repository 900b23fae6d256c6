"""Whatever one request asks, the others are answered, and what may not be drawn is not drawn."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.llm import LLM
from tallyformer.inference.native.available import available
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer.tokenizer import Tokenizer

MORE_ROWS = 22
"""Rows of the model beyond the tokenizer's ids, as where a vocabulary is filled up to 64."""


@pytest.fixture(scope="module")
def padded_folder(
    tally_folder: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("padded")
    shutil.copytree(tally_folder, folder, dirs_exist_ok=True)
    config = json.loads((tally_folder / "config.json").read_text())
    config["vocab_size"] = tokenizer.vocab_size + MORE_ROWS
    torch.manual_seed(0)
    TallyFormerForCausalLM(TallyFormerConfig(**config)).save_pretrained(folder)
    # Some folders say so where there is no such id, and name ids that only the model has.
    settings = {"eos_token_id": [-1, tokenizer.eot_id, tokenizer.vocab_size + 1, 10**12]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module", params=["native", "torch"])
def padded(request: pytest.FixtureRequest, padded_folder: Path) -> LLM:
    if request.param == "native" and (reason := available()):
        pytest.skip(reason)
    return LLM.from_pretrained(padded_folder, device="cpu", runner=request.param)


_NUMBERS = st.sampled_from([1e-320, 1e-46, 1e-30, 0.01, 1.0, 100.0, 1e30, 1e39, 1e308])
_ID = st.integers(0, 400)
_EXTREMES = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.just(0) | _NUMBERS,
        "repetition_penalty": _NUMBERS,
        "top_k": st.sampled_from([0, 1, 2**31, 2**32 + 1, 10**400]),
        "top_p": st.sampled_from([1e-320, 1e-46, 0.5, 1.0]),
        "min_p": st.sampled_from([0.0, 1e-320, 1.0]),
        "logit_bias": st.dictionaries(_ID, st.sampled_from([-100, 100]), max_size=3),
        "bad_token_ids": st.lists(_ID, max_size=3) | st.just(list(range(1, 330))),
        "stop_token_ids": st.lists(_ID, max_size=3),
        "min_tokens": st.integers(0, 3),
        "look_up": st.sampled_from([0, 16]),
        "logprobs": st.sampled_from([0, 100]),
        "prompt_logprobs": st.sampled_from([0, 100]),
    },
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=_EXTREMES, prompt=st.lists(_ID, max_size=4))
def test_extreme_settings_are_refused_at_the_call_or_answered_beside_others(
    padded: LLM, asked: dict[str, Any], prompt: list[int]
) -> None:
    plain = SamplingParams(seed=3, max_tokens=4, ignore_eos=True)
    [alone] = padded.generate("A bond", plain)
    stream = padded.stream("A bond", plain)
    ids = list(next(stream).token_ids)
    try:
        params = SamplingParams(**asked, seed=1, max_tokens=4)
        [output] = padded.generate([prompt], params)
    except InvalidRequestError as error:
        assert "\n" not in str(error)
    else:
        assert not set(output.token_ids) & set(params.bad_token_ids)
        assert max(output.token_ids) < padded.tokenizer.vocab_size
    assert [*ids, *(i for piece in stream for i in piece.token_ids)] == alone.token_ids


def test_no_temperature_lets_a_banned_id_be_drawn(padded: LLM) -> None:
    allowed = {5, 6, 7}
    bad = [i for i in range(padded.tokenizer.vocab_size) if i not in allowed]
    for temperature in (1e-300, 1e30, 1e38, 1e39, 1e300):
        for more in ({}, {"top_p": 0.9}, {"top_k": 300}, {"top_k": 300, "top_p": 0.9}):
            params = SamplingParams(
                temperature=temperature, bad_token_ids=bad, seed=1, max_tokens=20, **more
            )
            assert set(padded.generate("A bond", params)[0].token_ids) <= allowed


def test_an_id_without_a_text_is_refused_wherever_it_is_named(padded: LLM) -> None:
    wrong = padded.tokenizer.vocab_size
    for prompt, params in [
        ([wrong], SamplingParams()),
        ([5], SamplingParams(logit_bias={wrong: 1.0})),
        ([5], SamplingParams(bad_token_ids=[wrong])),
    ]:
        with pytest.raises(InvalidRequestError, match=f"id {wrong}.*not in the vocabulary"):
            padded.generate([prompt], params)


def test_what_a_callers_own_function_raises_reaches_that_caller_alone(padded: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    [alone] = padded.generate("A bond", params)
    found: list[Any] = []

    def fails() -> None:
        raise ZeroDivisionError

    def other() -> None:
        try:
            padded.generate("Profit", params, on_finished=fails)
        except ZeroDivisionError as error:
            found.append(error)

    stream = padded.client.stream(padded.asked("A bond", params))
    ids = list(next(stream).token_ids)
    threads = [threading.Thread(target=other, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for piece in stream:
        ids += piece.token_ids
    for thread in threads:
        thread.join(60)
    assert ids == alone.token_ids and len(found) == 4
