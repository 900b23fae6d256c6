"""A runner's logits are the plain model's, whatever joined, left and continued before."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import FalconConfig, FalconForCausalLM, MistralConfig, MistralForCausalLM

from tallyformer.inference.engine.graph_runner import GraphRunner
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.torch_runners import static_shape
from tallyformer.model.shape import ModelShape

CONTEXT, VOCABULARY = 32, 330  # of the folders in conftest.py
_ACTIONS = st.lists(
    st.one_of(
        # New sequences, of so many ids each, and for how many of them logits are wanted.
        st.tuples(
            st.just("begin"),
            st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=3),
        ),
        # Ids for some of those that are there, of which some are forgotten first.
        st.tuples(
            st.just("continue"),
            st.lists(
                st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 5)),
                min_size=1,
                max_size=4,
                unique_by=lambda part: part[0],
            ),
        ),
        st.tuples(st.just("decode"), st.integers(1, 8)),
        st.tuples(st.just("fork"), st.tuples(st.integers(0, 5), st.integers(1, CONTEXT))),
        st.tuples(st.just("release"), st.sets(st.integers(0, 5), min_size=1, max_size=2)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=12,
)


class Checked:
    """A runner, and what each sequence holds."""

    def __init__(self, model: Any, runner: TorchRunner) -> None:
        self.model, self.runner = model, runner
        self.windows: dict[int, list[int]] = {}
        self.ids = torch.Generator().manual_seed(0)
        self.next_number = 0

    def new(self, window: list[int]) -> int:
        self.windows[self.next_number] = window
        self.next_number += 1
        return self.next_number - 1

    def work(self, number: int, count: int, forget: int = 0, logits: int = 1) -> Work:
        """`count` more ids, where there is room, after forgetting some."""
        kept = self.windows[number][: max(0, len(self.windows[number]) - forget)]
        ids = torch.randint(0, 200, (min(count, CONTEXT - len(kept)),), generator=self.ids).tolist()
        self.windows[number] = kept + ids
        return Work(number, len(kept), ids, min(logits, len(ids)))

    def begin(self, parts: list[tuple[int, int]]) -> None:
        self.compute([self.work(self.new([]), count, logits=logits) for count, logits in parts])

    def go(self, parts: list[tuple[int, int, int]]) -> None:
        numbers = list(self.windows)
        chosen = [(numbers[i], *part) for i, *part in parts if i < len(numbers)]
        work = [self.work(n, count, forget, forget + 1) for n, forget, count in chosen]
        self.compute([w for w in work if w.ids])

    def decode(self, steps: int) -> None:
        for _ in range(steps):
            self.release([n for n, window in self.windows.items() if len(window) == CONTEXT])
            self.compute([self.work(number, 1) for number in list(self.windows)][::-1])

    def fork(self, which: int, length: int) -> None:
        if which < len(self.windows):
            number = list(self.windows)[which]
            window = self.windows[number][:length]
            self.runner.fork(number, self.new(window), len(window))

    def release(self, numbers: list[int]) -> None:
        if numbers:
            self.runner.release(numbers)
        for number in numbers:
            del self.windows[number]

    def compute(self, work: list[Work]) -> None:
        if not sum(w.logits for w in work):
            if work:
                self.runner.compute(work)
            return
        logits = self.runner.compute(work)
        ordered = dict(zip(logits.places, logits.rows, strict=True))
        found = [ordered[place] for place in range(len(ordered))]
        for w in work:
            with torch.inference_mode():
                plain_TV = self.model(torch.tensor([self.windows[w.number]])).logits[0]
            rows, found = found[: w.logits], found[w.logits :]
            for row_V, expected_V in zip(rows, plain_TV[len(plain_TV) - w.logits :], strict=True):
                # The wide weights give logits of about 100, so this is 1e-4 of logits of 10.
                torch.testing.assert_close(row_V, expected_V[:VOCABULARY], atol=1e-3, rtol=1e-5)
        assert not found


def _check(model: Any, actions: list[Any], runner: TorchRunner | None = None) -> None:
    checked = Checked(model, runner or TorchRunner(model, VOCABULARY))
    for action, argument in [("begin", [(3, 1), (9, 1)]), *actions, ("decode", 2)]:
        if action == "begin":
            checked.begin(argument)
        elif action == "continue":
            checked.go(argument)
        elif action == "decode":
            checked.decode(argument)
        elif action == "fork":
            checked.fork(*argument)
        elif action == "release":
            here = list(checked.windows)
            checked.release([here[i] for i in argument if i < len(here)])
        else:
            checked.runner.clear()
            checked.windows = {}


@settings(deadline=None, max_examples=25)
@given(actions=_ACTIONS)
def test_logits_are_the_plain_models_in_any_company(llm: LLM, actions: list[Any]) -> None:
    _check(llm.model, actions)


@settings(deadline=None, max_examples=15)
@given(actions=_ACTIONS, batch_invariant=st.booleans())
def test_logits_in_static_slots_are_the_plain_models_in_any_company(
    llm: LLM, actions: list[Any], batch_invariant: bool
) -> None:
    shape = static_shape(llm.model)
    assert isinstance(shape, ModelShape)
    runner = GraphRunner(llm.model, shape, VOCABULARY, slots=48, batch_invariant=batch_invariant)
    _check(llm.model, actions, runner)


@settings(deadline=None, max_examples=10)
@given(actions=_ACTIONS)
def test_a_model_that_sees_the_newest_ids_alone_keeps_its_own_mask(actions: list[Any]) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=CONTEXT,
        sliding_window=5,
        initializer_range=0.4,
    )
    _check(MistralForCausalLM(config).eval(), actions)


@settings(deadline=None, max_examples=10)
@given(actions=_ACTIONS)
def test_a_model_whose_positions_are_in_its_mask_keeps_its_own(actions: list[Any]) -> None:
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        alibi=True,
        initializer_range=0.4,
    )
    _check(FalconForCausalLM(config).eval(), actions)
