"""A sampling method of one's own is one class; both runners take it, and it harms nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TypicalLogitsWarper

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.keyed_random import key_of, uniform_at

_PAGE = Path(__file__).parents[2] / "docs" / "inference.md"


@pytest.fixture(scope="module", params=["native", "torch"])
def llm(request: pytest.FixtureRequest, tally_folder: Path) -> LLM:
    return LLM.from_pretrained(tally_folder, device="cpu", runner=request.param, dtype="float32")


@pytest.fixture(scope="module")
def typical() -> Callable[[float], Any]:
    """The class in the documentation."""
    [block] = [
        part.split("```")[0]
        for part in _PAGE.read_text().split("```python\n")
        if "class Typical" in part.split("```")[0]
    ]
    names: dict[str, Any] = {"SamplingParams": SamplingParams}
    exec(block, names)
    return names["Typical"]  # type: ignore[no-any-return]


def test_the_documented_method_is_the_one_of_transformers(typical: Callable[[float], Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(200, 330, generator=generator, dtype=torch.float64) * 4
    for mass in (0.2, 0.9, 0.99):
        expected_NV = TypicalLogitsWarper(mass=mass)(torch.zeros(200, 1), logits_NV)
        for logits_V, expected_V in zip(logits_NV, expected_NV, strict=True):
            found_V = typical(mass)(logits_V.numpy().copy(), [])
            assert (np.isinf(found_V) == expected_V.isinf().numpy()).all()


def test_what_it_leaves_out_is_never_drawn(llm: LLM, typical: Callable[[float], Any]) -> None:
    kept: list[set[int]] = []

    class Noted:
        def __init__(self) -> None:
            self._method = typical(0.3)

        def __call__(self, logits_V: np.ndarray, ids: Sequence[int]) -> np.ndarray:
            assert logits_V.shape == (llm.tokenizer.vocab_size,)
            changed_V: np.ndarray = self._method(logits_V, ids)
            kept.append(set(np.flatnonzero(np.isfinite(changed_V)).tolist()))
            return changed_V

    params = SamplingParams(seed=3, max_tokens=60, ignore_eos=True, logits_processor=Noted)
    [output] = llm.generate("A bond", params)
    assert len(kept) == len(output.token_ids) == 60
    assert all(i in ids for i, ids in zip(output.token_ids, kept, strict=True))
    [usual] = llm.generate("A bond", SamplingParams(seed=3, max_tokens=60, ignore_eos=True))
    assert usual.token_ids != output.token_ids


def test_a_method_that_draws_numbers_of_its_own_gives_the_same_answer_anywhere(llm: LLM) -> None:
    class ExcludeTopChoices:
        """XTC: half of the time, the likely ids but the last of them leave."""

        def __init__(self) -> None:
            self._key = key_of("exclude top choices", 5)

        def __call__(self, logits_V: np.ndarray, ids: Sequence[int]) -> np.ndarray:
            likely = logits_V.argsort()[::-1][: 1 + (logits_V > logits_V.max() - 2).sum()]
            if uniform_at(self._key, len(ids)) < 0.5:
                logits_V[likely[:-1]] = -np.inf
            return logits_V

    usual = SamplingParams(seed=5, max_tokens=30, ignore_eos=True)
    params = replace(usual, logits_processor=ExcludeTopChoices)
    [alone] = llm.generate("A bond", params)
    assert alone.token_ids != llm.generate("A bond", usual)[0].token_ids
    assert llm.generate(["A bond", *["Revenue"] * 9], params)[0].token_ids == alone.token_ids
    assert "".join(piece.text for piece in llm.stream("A bond", params)) == alone.text
    assert llm.generate("A bond", replace(params, n=3))[0].token_ids == alone.token_ids


def test_bans_hold_whatever_it_returns_and_logprobs_stay_the_models_own(llm: LLM) -> None:
    def only_five(logits_V: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        changed_V = np.full_like(logits_V, -1e9)
        changed_V[5], changed_V[6] = 100, 50
        return changed_V

    settings: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "logprobs": 2}
    [usual] = llm.generate([[9, 10]], SamplingParams(**settings))
    [forced] = llm.generate(
        [[9, 10]], SamplingParams(**settings, logits_processor=lambda: only_five)
    )
    [banned] = llm.generate(
        [[9, 10]],
        SamplingParams(**settings, bad_token_ids=[5], logits_processor=lambda: only_five),
    )
    assert forced.token_ids == [5] and banned.token_ids == [6]
    assert forced.logprobs[0].alternatives == usual.logprobs[0].alternatives
    assert forced.logprobs[0].logprob < usual.logprobs[0].logprob
    [scored] = llm.generate([[9, 10, 5]], SamplingParams(max_tokens=0, prompt_logprobs=0))
    assert scored.prompt_logprobs[2].logprob == pytest.approx(forced.logprobs[0].logprob, abs=1e-4)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda logits_V: None, "logits_processor: None for "),
        (lambda logits_V: "high", "logits_processor: 'high' for "),
        (lambda logits_V: logits_V[:-1], r"an array of shape \(\d+,\) for \d+ ids"),
        (lambda logits_V: logits_V[None], r"an array of shape \(1, \d+\) for"),
        (lambda logits_V: logits_V * np.nan, "a logit became nan"),
        (lambda logits_V: logits_V + np.inf, "a logit became inf"),
        (lambda logits_V: logits_V.astype(np.float64) * 0 + 1e300, "a logit became inf"),
        (lambda logits_V: logits_V - np.inf, "no token may follow"),
        (lambda logits_V: 1 / 0, "division by zero"),
    ],
)
def test_what_it_does_wrong_ends_its_own_answer_alone(
    llm: LLM, result: Callable[[np.ndarray], Any], message: str
) -> None:
    def wrong(logits_V: np.ndarray, ids: Sequence[int]) -> Any:
        return logits_V if len(ids) < 3 else result(logits_V)

    greedy = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    alone = "".join(piece.text for piece in llm.stream("A bond", greedy))
    other = llm.stream("A bond", greedy)
    begun = next(other).text
    with pytest.raises((ValueError, ZeroDivisionError), match=message):
        llm.generate("Revenue", replace(greedy, logits_processor=lambda: wrong))
    assert begun + "".join(piece.text for piece in other) == alone


def test_it_must_be_a_function_that_makes_one() -> None:
    with pytest.raises(ValueError, match="logits_processor: must be None or a function"):
        SamplingParams(logits_processor=3)  # type: ignore[arg-type]
