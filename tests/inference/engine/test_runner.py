"""A runner's logits are the plain model's, whatever joined, left and continued before."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.inference.engine.runner import Work
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM

CONTEXT, VOCABULARY = 32, 330  # of the folders in conftest.py
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("prefill"), st.lists(st.integers(1, 20), min_size=1, max_size=3)),
        st.tuples(st.just("decode"), st.integers(1, 8)),
        st.tuples(st.just("release"), st.sets(st.integers(0, 5), min_size=1, max_size=2)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=12,
)


class Checked:
    """A runner, and what each sequence holds."""

    def __init__(self, model: Any) -> None:
        self.model, self.runner = model, TorchRunner(model, VOCABULARY)
        self.windows: dict[int, list[int]] = {}
        self.ids = torch.Generator().manual_seed(0)
        self.next_number = 0

    def some_ids(self, count: int) -> list[int]:
        return torch.randint(0, 200, (count,), generator=self.ids).tolist()

    def prefill(self, lengths: list[int]) -> None:
        new = {self.next_number + i: self.some_ids(n) for i, n in enumerate(lengths)}
        self.next_number += len(new)
        self.windows |= new
        self.check([Work(number, 0, ids) for number, ids in new.items()])

    def decode(self, steps: int) -> None:
        for _ in range(steps):
            full = [n for n, window in self.windows.items() if len(window) == CONTEXT]
            self.release(full)
            if not self.windows:
                return
            new = {number: self.some_ids(1)[0] for number in self.windows}
            work = []
            for number, new_id in new.items():
                self.windows[number].append(new_id)
                work.append(Work(number, len(self.windows[number]) - 1, [new_id]))
            self.check(work[::-1])

    def release(self, numbers: list[int]) -> None:
        self.runner.release(numbers)
        for number in numbers:
            del self.windows[number]

    def check(self, work: list[Work]) -> None:
        logits = self.runner.compute(work)
        assert sorted(logits.places) == list(range(len(work)))
        for place, logits_V in zip(logits.places, logits.rows, strict=True):
            number = work[place].number
            with torch.inference_mode():
                plain_V = self.model(torch.tensor([self.windows[number]])).logits[0, -1]
            # The wide weights give logits of about 100, so this is 1e-4 of logits of 10.
            torch.testing.assert_close(logits_V, plain_V, atol=1e-3, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(actions=_ACTIONS)
def test_logits_are_the_plain_models_in_any_company(llm: LLM, actions: list[Any]) -> None:
    checked = Checked(llm.model)
    for action, argument in [("prefill", [3, 9]), *actions, ("decode", 2)]:
        if action == "prefill":
            checked.prefill(argument)
        elif action == "decode":
            checked.decode(argument)
        elif action == "release":
            here = list(checked.windows)
            checked.release([here[i] for i in argument if i < len(here)])
        else:
            checked.runner.clear()
            checked.windows = {}
