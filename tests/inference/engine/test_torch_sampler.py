"""Laws of the choice of an id, with torch."""

from __future__ import annotations

import numpy as np
import torch

from tallyformer.inference.engine.runner import Row
from tallyformer.inference.engine.torch_sampler import choose
from tallyformer.inference.sampling_params import SamplingParams

V = 40


def _row(uniform: float = 0.5, **fields: object) -> Row:
    params = fields.pop("params", SamplingParams())
    return Row(params=params, counts={}, prompt_ids=[1], uniform=uniform, **fields)  # type: ignore[arg-type]


def _logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(0)) * 2


def test_log_probabilities_are_the_models_own_whatever_the_settings() -> None:
    logits_NV = _logits(2)
    expected_NV = logits_NV.double().log_softmax(dim=1)
    params = SamplingParams(temperature=0.3, top_k=2, presence_penalty=2.0)
    wanted = [_row(params=params, logprobs=3, banned={5}), _row(params=params)]
    choice, bare = choose(logits_NV, wanted)
    assert choice.logprob == expected_NV[0, choice.id].item()
    values, ids = expected_NV[0].topk(3)
    assert choice.alternatives == tuple(zip(ids.tolist(), values.tolist(), strict=True))
    assert bare.logprob is None and bare.alternatives == ()


def test_a_given_id_is_scored_and_not_drawn() -> None:
    logits_NV = _logits(1)
    [choice] = choose(logits_NV, [_row(given=7, logprobs=0)])
    assert (choice.id, choice.alternatives) == (7, ())
    assert choice.logprob == logits_NV.double().log_softmax(dim=1)[0, 7].item()


def test_banned_ids_and_those_outside_the_mask_are_never_drawn() -> None:
    words = np.array([0b1011_0000, 0b11], np.uint32)  # ids 4, 5, 7, 32, 33
    for params in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_p=0.9)):
        rows = [_row((i + 0.5) / 200, params=params, allowed=words, banned=[5]) for i in range(200)]
        drawn = {choice.id for choice in choose(_logits(1).expand(200, V), rows)}
        assert drawn <= {4, 7, 32, 33}
