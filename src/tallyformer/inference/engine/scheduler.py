"""Which sequences are computed in the next step. Pure Python; loads no torch.

A sequence waits, runs and finishes. In a step each running one is decoded (one id is computed
after those whose keys and values are kept), and as many waiting ones as fit are prefilled (their
whole window is computed) and run from then on. So new sequences join between any two steps. A
running one whose window is full goes back to the waiting with its newest half.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tallyformer.inference.engine.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The work of one step; no sequence is in both lists.

    Attributes:
        prefill: sequences whose window is computed, in order of arrival.
        decode: all others that run.
    """

    prefill: list[Sequence]
    decode: list[Sequence]


class Scheduler:
    """Waiting and running sequences, served in their order of arrival.

    Args:
        max_running: most sequences that run at once, 1 or more.
        prefill_tokens: most ids that one step prefills, padding included: rows times the longest
            window. No window may be longer.

    Attributes:
        waiting: in order of arrival; one that ran before is in front of those that never did.
        running: those whose keys and values are kept.
    """

    def __init__(self, *, max_running: int, prefill_tokens: int) -> None:
        assert max_running >= 1
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._max_running = max_running
        self._prefill_tokens = prefill_tokens

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait; its number is greater than those of all others."""
        assert len(sequence.window) <= self._prefill_tokens
        self.waiting.append(sequence)

    def schedule(self) -> Schedule:
        """Admit waiting sequences, the first ones first, and say what is computed now."""
        decode = list(self.running)
        prefill: list[Sequence] = []
        widest = 0
        while self.waiting and len(self.running) < self._max_running:
            widest = max(widest, len(self.waiting[0].window))
            if (len(prefill) + 1) * widest > self._prefill_tokens:
                break
            sequence = self.waiting.popleft()
            sequence.state = "running"
            prefill.append(sequence)
            self.running.append(sequence)
        return Schedule(prefill=prefill, decode=decode)

    def settle(self) -> list[Sequence]:
        """After a step: return those that no longer run, finished or with a full window."""
        left = [s for s in self.running if s.finish_reason or s.full]
        self.running = [s for s in self.running if not (s.finish_reason or s.full)]
        for sequence in left:
            if sequence.finish_reason:
                sequence.state = "finished"
        self._wait_again([s for s in left if not s.finish_reason])
        return left

    def preempt(self) -> None:
        """Let all running sequences wait again: their keys and values are lost."""
        running, self.running = self.running, []
        self._wait_again(running)

    def abort(self, sequence: Sequence) -> bool:
        """Forget a sequence that waits or runs; return whether it ran."""
        ran = sequence.state == "running"
        if ran:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.state = "finished"
        return ran

    def _wait_again(self, left: list[Sequence]) -> None:
        """In front of all that came after them, full windows with their newest half."""
        if not left:
            return
        for sequence in left:
            sequence.state = "waiting"
            if sequence.full:
                sequence.shorten()
        self.waiting = deque(sorted((*left, *self.waiting), key=lambda s: s.number))
