"""Laws of the scheduler, under any arrivals, lengths, limits and aborts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tallyformer.inference.engine.runner import Choice
from tallyformer.inference.engine.scheduler import Fork, Scheduler
from tallyformer.inference.engine.sequence import Sequence
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.stream import StreamDecoder

CONTEXT = 8
# (ids of the prompt, ids of the answer, key) arrives; a step is taken; a sequence is aborted.
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(1, 2 * CONTEXT),
            st.integers(1, 3 * CONTEXT),
            st.sampled_from([None, "a", "b"]),
        ),
        st.tuples(st.just("step"), st.integers(1, 5)),
        st.tuples(st.just("abort"), st.integers(0, 20)),
        st.tuples(st.just("preempt")),
    ),
    max_size=30,
)


def _sequence(number: int, prompt: int, answer: int, key: str | None = None) -> Sequence:
    return Sequence(
        number,
        [0] * prompt,
        SamplingParams(max_tokens=answer, ignore_eos=True),
        context=CONTEXT,
        vocab_size=1,
        eos_ids=(),
        decoder=StreamDecoder([b"a"]),
        seed=0,
        prefix_key=key,
        stays=key is not None,
    )


class Watched:
    """A scheduler, and what an observer knows of it."""

    def __init__(
        self, places: int, tokens: int, chunk: int | None, most_idle: int | None = None
    ) -> None:
        self.scheduler = Scheduler(
            places=places, prefill_tokens=tokens, prefill_chunk=chunk, most_idle=most_idle
        )
        self.places, self.tokens, self.chunk = places, tokens, chunk
        self.sequences: list[Sequence] = []
        self.live: list[Sequence] = []
        self.kept: dict[int, int] = {}  # number: ids whose keys and values are kept
        self.begun: list[int] = []

    def add(self, prompt: int, answer: int, key: str | None) -> None:
        sequence = _sequence(len(self.sequences), prompt, answer, key)
        self.sequences.append(sequence)
        self.live.append(sequence)
        self.scheduler.add(sequence)

    def abort(self, which: int) -> None:
        if self.live:
            sequence = self.live.pop(which % len(self.live))
            ran = self.scheduler.abort(sequence)
            assert ran == (sequence.number in self.kept)
            self.kept.pop(sequence.number, None)
            assert sequence not in self.scheduler.running
            assert sequence not in self.scheduler.waiting

    def preempt(self) -> None:
        self.scheduler.preempt()
        self.kept.clear()
        assert not self.scheduler.running and not self.scheduler.idle

    def step(self) -> None:
        decodes = {s.number for s in self.scheduler.running if s.missing == 1}
        schedule = self.scheduler.schedule()
        self.move(schedule.moves)
        parts = {s.number: count for s, count in schedule.parts}
        assert len(parts) == len(schedule.parts)
        # Nobody who is in the middle of an answer is held up, whatever else is prefilled.
        assert all(parts[number] == 1 for number in decodes)
        prefilled = {n: count for n, count in parts.items() if n not in decodes}
        assert all(count >= 1 for count in prefilled.values())
        assert sum(prefilled.values()) <= self.tokens
        self.order_holds(schedule.parts)
        for sequence, count in schedule.parts:
            assert self.kept.get(sequence.number, 0) == sequence.kept
            assert count <= (self.chunk or CONTEXT) and len(sequence.window) <= CONTEXT
            if self.chunk is None:
                assert count == sequence.missing
            work = sequence.work(count)
            self.kept[sequence.number] = sequence.kept + count
            sequence.take(work, [Choice(0)] * work.logits)
        assert len(self.kept) <= self.places
        self.settle()

    def move(self, moves: list[Fork | int]) -> None:
        key = {s.number: s.prefix_key for s in self.sequences}
        for move in moves:
            if isinstance(move, Fork):
                assert key[move.number] == key[move.new] is not None
                assert 1 <= move.length <= self.kept[move.number]
                self.kept[move.new] = move.length
            else:
                del self.kept[move]
            assert len(self.kept) <= self.places

    def settle(self) -> None:
        before = {s.number: list(s.window) for s in self.live}
        for sequence in self.scheduler.settle():
            del self.kept[sequence.number]
            if sequence.finish_reason is None:
                assert sequence.state == "waiting"
                assert len(before[sequence.number]) == CONTEXT + 1
                assert sequence.window == before[sequence.number][-(CONTEXT // 2) :]
        self.live = [s for s in self.live if s.finish_reason is None]
        running, waiting = self.scheduler.running, self.scheduler.waiting
        assert sorted(s.number for s in (*running, *waiting)) == [s.number for s in self.live]
        assert {s.number for s in (*running, *self.scheduler.idle)} == self.kept.keys()

    def order_holds(self, parts: list[tuple[Sequence, int]]) -> None:
        waiting = [s.number for s in self.scheduler.waiting]
        assert waiting == sorted(waiting)
        self.begun += [s.number for s, _ in parts if s.number not in self.begun]
        assert self.begun == sorted(self.begun)


@given(
    actions=_ACTIONS,
    places=st.integers(1, 4),
    chunk=st.none() | st.integers(1, CONTEXT),
    more=st.integers(0, 2 * CONTEXT),
)
def test_limits_and_order_hold_and_everybody_is_served(
    actions: list[Any], places: int, chunk: int | None, more: int
) -> None:
    watched = Watched(places, tokens=(chunk or CONTEXT) + more, chunk=chunk)
    for action, *arguments in actions:
        if action == "add":
            watched.add(*arguments)
        elif action == "step":
            for _ in range(arguments[0]):
                watched.step()
        elif action == "abort":
            watched.abort(*arguments)
        else:
            watched.preempt()
    # Nobody starves: each step computes at least one id, and none more than a few times.
    for _ in range(CONTEXT * sum(s.params.max_tokens - len(s.generated) for s in watched.live)):
        watched.step()
    assert not watched.live
    assert all(s.state == "finished" for s in watched.sequences)


@given(st.integers(5, 20), st.integers(1, 4))
def test_an_aborted_ones_place_is_taken_in_the_next_step(count: int, places: int) -> None:
    watched = Watched(places, tokens=100, chunk=None)
    for _ in range(count):
        watched.add(1, count + 2, None)
    watched.step()
    while watched.scheduler.waiting:
        next_one = watched.scheduler.waiting[0]
        watched.abort(watched.live.index(watched.scheduler.running[0]))
        watched.step()
        assert len(next_one.generated) == 1


def test_a_long_prompt_is_computed_in_parts_between_the_steps_of_the_others() -> None:
    watched = Watched(3, tokens=2, chunk=2)
    watched.add(1, 20, None)
    watched.step()
    watched.add(7, 5, None)
    watched.add(1, 5, None)
    long, short = watched.live[1:]
    generated = []
    for _ in range(5):
        watched.step()
        generated.append(
            (len(watched.live[0].generated), len(long.generated), len(short.generated))
        )
    # 7 ids take four steps, in the last of which there is room for the one that waited.
    assert generated == [(2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 1, 1), (6, 2, 2)]


def test_the_place_of_use_longest_ago_is_given_up_first() -> None:
    watched = Watched(3, tokens=100, chunk=None)
    for key in ("a", "b", "a"):
        watched.add(3, 1, key)
        watched.step()
    # The third began with the first's ids, so the second one's place is of least use.
    watched.add(3, 1, None)
    assert [s.number for s in watched.scheduler.idle] == [1, 0, 2]
    watched.step()
    assert [s.number for s in watched.scheduler.idle] == [0, 2]


def test_only_so_many_stay_after_their_end() -> None:
    watched = Watched(5, tokens=100, chunk=None, most_idle=2)
    for key in ("a", "b", "c"):
        watched.add(3, 1, key)
        watched.step()
    assert [s.number for s in watched.scheduler.idle] == [1, 2]
