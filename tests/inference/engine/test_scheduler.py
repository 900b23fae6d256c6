"""Laws of the scheduler, under any arrivals, lengths, limits and aborts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallyformer.inference.engine.scheduler import Scheduler
from tallyformer.inference.engine.sequence import Sequence
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.stream import StreamDecoder

CONTEXT = 8
# (ids of the prompt, ids of the answer) arrives; a step is taken; a sequence is aborted.
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 2 * CONTEXT), st.integers(1, 3 * CONTEXT)),
        st.tuples(st.just("step"), st.integers(1, 5), st.none()),
        st.tuples(st.just("abort"), st.integers(0, 20), st.none()),
        st.tuples(st.just("preempt"), st.none(), st.none()),
    ),
    max_size=30,
)


def _sequence(number: int, prompt: int, answer: int) -> Sequence:
    return Sequence(
        number,
        [0] * prompt,
        SamplingParams(max_tokens=answer, ignore_eos=True),
        context=CONTEXT,
        eos_ids=(),
        decoder=StreamDecoder([b"a"]),
        seed=0,
    )


class Watched:
    """A scheduler, and what an observer knows of it."""

    def __init__(self, max_running: int, prefill_tokens: int) -> None:
        self.scheduler = Scheduler(max_running=max_running, prefill_tokens=prefill_tokens)
        self.max_running, self.prefill_tokens = max_running, prefill_tokens
        self.sequences: list[Sequence] = []
        self.live: list[Sequence] = []
        self.computed: dict[int, int] = {}  # number: ids whose keys and values are kept
        self.begun: list[int] = []

    def add(self, prompt: int, answer: int) -> None:
        sequence = _sequence(len(self.sequences), prompt, answer)
        self.sequences.append(sequence)
        self.live.append(sequence)
        self.scheduler.add(sequence)

    def abort(self, which: int) -> None:
        if self.live:
            sequence = self.live.pop(which % len(self.live))
            ran = self.scheduler.abort(sequence)
            assert ran == (sequence.number in self.computed)
            self.computed.pop(sequence.number, None)
            assert sequence not in self.scheduler.running
            assert sequence not in self.scheduler.waiting

    def preempt(self) -> None:
        self.scheduler.preempt()
        self.computed.clear()
        assert not self.scheduler.running

    def step(self) -> None:
        schedule = self.scheduler.schedule()
        self._limits_hold(schedule.prefill)
        assert {s.number for s in schedule.decode} == self.computed.keys()
        for sequence in schedule.decode:
            # Just one id has to be computed: the newest.
            assert len(sequence.window) == self.computed[sequence.number] + 1
        for sequence in schedule.prefill:
            assert sequence.number not in self.computed
        self._order_holds(schedule.prefill)
        for sequence in (*schedule.decode, *schedule.prefill):
            assert len(sequence.window) <= CONTEXT
            self.computed[sequence.number] = len(sequence.window)
            sequence.push(0)
        before = {s.number: list(s.window) for s in self.live}
        for sequence in self.scheduler.settle():
            del self.computed[sequence.number]
            if sequence.finish_reason is None:
                assert sequence.state == "waiting"
                assert len(before[sequence.number]) == CONTEXT + 1
                assert sequence.window == before[sequence.number][-(CONTEXT // 2) :]
        self.live = [s for s in self.live if s.finish_reason is None]
        assert sorted(s.number for s in (*self.scheduler.running, *self.scheduler.waiting)) == [
            s.number for s in self.live
        ]

    def _limits_hold(self, prefill: list[Sequence]) -> None:
        running, waiting = self.scheduler.running, self.scheduler.waiting
        assert len(running) <= self.max_running
        lengths = [len(s.window) for s in prefill]
        assert len(lengths) * max(lengths, default=0) <= self.prefill_tokens
        if waiting and len(running) < self.max_running:
            # A place stays free only where the next one does not fit into this step.
            lengths.append(len(waiting[0].window))
            assert len(lengths) * max(lengths) > self.prefill_tokens

    def _order_holds(self, prefill: list[Sequence]) -> None:
        assert [s.number for s in self.scheduler.waiting] == sorted(
            s.number for s in self.scheduler.waiting
        )
        self.begun += [s.number for s in prefill if s.number not in self.begun]
        assert self.begun == sorted(self.begun)


@given(_ACTIONS, st.integers(1, 4), st.integers(CONTEXT, 3 * CONTEXT))
def test_limits_and_order_hold_and_everybody_is_served(
    actions: list[tuple[str, int, int]], max_running: int, prefill_tokens: int
) -> None:
    watched = Watched(max_running, prefill_tokens)
    for action, first, second in actions:
        if action == "add":
            watched.add(first, second)
        elif action == "step":
            for _ in range(first):
                watched.step()
        elif action == "abort":
            watched.abort(first)
        else:
            watched.preempt()
    # Nobody starves: each step takes at least one of them on.
    for _ in range(sum(s.params.max_tokens - s.counts.total() for s in watched.live)):
        watched.step()
    assert not watched.live and not watched.computed
    assert all(s.state == "finished" for s in watched.sequences)


@given(st.integers(5, 20), st.integers(1, 4))
def test_an_aborted_ones_place_is_taken_in_the_next_step(count: int, max_running: int) -> None:
    watched = Watched(max_running, prefill_tokens=100)
    for _ in range(count):
        watched.add(1, answer=count + 2)
    watched.step()
    while watched.scheduler.waiting:
        next_one = watched.scheduler.waiting[0]
        watched.abort(watched.live.index(watched.scheduler.running[0]))
        watched.step()
        assert next_one.counts.total() == 1
