"""Which sequences are computed in the next step, and how far. Pure Python; loads no torch.

A sequence waits, runs and finishes. In a step each running one whose window is computed but for
its newest id gets the next one (decode): a long prompt never holds it up. What else the step may
compute goes to those of whose windows less is kept (prefill), in their order of arrival: first
those that run, then those that wait, as long as there are places. So new sequences join between any
two steps. A running one whose window is full goes back to the waiting with its newest half.

A sequence with a `prefix_key` begins with what another one with the same key keeps, as far as their
ids are the same. After its end such a sequence stays in its place, idle, until another needs it or
more than `most_idle` are.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tallyformer.inference.engine.sequence import Sequence

MOST_SCORED = 512
"""Ids of prompts in a step of which each needs a row of logits."""


@dataclass(frozen=True)
class Fork:
    """Before the step, `new` gets the first `length` ids that `number` keeps."""

    number: int
    new: int
    length: int


@dataclass(frozen=True)
class Schedule:
    """What a step does.

    Attributes:
        moves: forks, and numbers that are released, in this order, before the step.
        parts: sequences, each once, and how many ids of their windows are computed.
    """

    moves: list[Fork | int] = field(default_factory=list)
    parts: list[tuple[Sequence, int]] = field(default_factory=list)


class Scheduler:
    """Waiting and running sequences, served in their order of arrival.

    Args:
        places: most sequences that are kept at once, 1 or more.
        prefill_tokens: most ids that one step prefills, 1 or more.
        prefill_chunk: most ids of one sequence in a step, 1 or more; None computes windows
            whole, and then no window may be longer than `prefill_tokens`.
        most_idle: sequences that stay after their end, 1 or more; None: as many as there are
            places.

    Attributes:
        waiting: in order of arrival; one that ran before is in front of those that never did.
        running: those that have a place, in the order in which they got it.
        idle: finished ones whose keys and values are still kept, the one that was of use last
            at the end.
    """

    def __init__(
        self,
        *,
        places: int,
        prefill_tokens: int,
        prefill_chunk: int | None,
        most_idle: int | None = None,
    ) -> None:
        most_idle = places if most_idle is None else most_idle
        assert places >= 1 and prefill_tokens >= 1 and most_idle >= 1
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.idle: list[Sequence] = []
        self._places = places
        self._most_idle = most_idle
        self._prefill_tokens = prefill_tokens
        self._prefill_chunk = prefill_chunk

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait; its number is greater than those of all others."""
        self.waiting.append(sequence)

    def schedule(self) -> Schedule:
        """Admit waiting sequences, the first ones first, and say what is computed now."""
        schedule = Schedule(parts=[(s, 1) for s in self.running if s.missing == 1])
        room = _Room(self._prefill_tokens, self._prefill_chunk)
        if len(schedule.parts) < len(self.running):
            for sequence in self.running:
                if sequence.missing > 1 and (count := room.take(sequence)):
                    schedule.parts.append((sequence, count))
        for sequence in list(self.waiting):
            if len(self.running) >= self._places:
                break
            if _waits_for_leader(sequence):
                continue
            source, sequence.kept = self._prefix_of(sequence)
            count = room.take(sequence)
            if not count:
                sequence.kept = 0
                break
            self._admit(sequence, source, schedule.moves)
            schedule.parts.append((sequence, count))
        return schedule

    def settle(self) -> list[Sequence]:
        """After a step: return those whose place is free again, finished or with a full window."""
        left = [s for s in self.running if s.leaves]
        if not left:
            return []
        self.running = [s for s in self.running if not s.leaves]
        free = []
        for sequence in left:
            if sequence.finish_reason:
                sequence.state = "finished"
            if sequence.finish_reason and self._is_of_use(sequence):
                self.idle.append(sequence)
            else:
                free.append(sequence)
        while len(self.idle) > self._most_idle:
            free.append(self.idle.pop(0))
        self._wait_again([s for s in left if not s.finish_reason])
        return free

    def preempt(self) -> None:
        """Let all running sequences wait again: their keys and values are lost."""
        running, self.running = self.running, []
        self.idle = []
        self._wait_again(running)

    def abort(self, sequence: Sequence) -> bool:
        """Forget a sequence that waits or runs; return whether it had a place."""
        ran = sequence.state == "running"
        if ran:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.state = "finished"
        return ran

    def _is_of_use(self, finished: Sequence) -> bool:
        return finished.stays or any(waits.leader is finished for waits in self.waiting)

    def _prefix_of(self, sequence: Sequence) -> tuple[Sequence | None, int]:
        """What keeps the longest part of the window's beginning, and how long that is.

        The newest id is always computed, for its logits.
        """
        best, longest = None, 0
        if sequence.prefix_key is None or sequence.unscored:
            return best, longest
        for other in (*self.running, *self.idle):
            if other.prefix_key != sequence.prefix_key:
                continue
            most = min(other.kept, len(sequence.window) - 1)
            length = _common(sequence.window, other.window, most)
            if length > longest and self._may_stay(other):
                best, longest = other, length
        return best, longest

    def _may_stay(self, source: Sequence) -> bool:
        """Whether a place is left for a copy of it: its own is not the last that can be freed."""
        return self._has_free_place or self.idle != [source]

    @property
    def _has_free_place(self) -> bool:
        return len(self.running) + len(self.idle) < self._places

    def _admit(self, sequence: Sequence, source: Sequence | None, moves: list[Fork | int]) -> None:
        if source in self.idle:
            self.idle.remove(source)
            self.idle.append(source)
        if not self._has_free_place:
            moves.append(self.idle.pop(0).number)
        if source is not None:
            moves.append(Fork(source.number, sequence.number, sequence.kept))
        self.waiting.remove(sequence)
        sequence.run()
        self.running.append(sequence)

    def _wait_again(self, left: list[Sequence]) -> None:
        """In front of all that came after them, full windows with their newest half."""
        if not left:
            return
        for sequence in left:
            sequence.state = "waiting"
            sequence.kept = 0
            if sequence.full:
                sequence.shorten()
        self.waiting = deque(sorted((*left, *self.waiting), key=lambda s: s.number))


class _Room:
    """What a step may still prefill."""

    def __init__(self, tokens: int, chunk: int | None) -> None:
        self._tokens, self._chunk = tokens, chunk
        self._scored = 0

    def take(self, sequence: Sequence) -> int:
        """How many ids of a sequence are computed; 0 if it has to wait."""
        most = self._tokens
        if sequence.unscored and self._scored:
            most = min(most, MOST_SCORED - self._scored)
        if self._chunk is None:
            count = sequence.missing if sequence.missing <= most else 0
        else:
            count = max(0, min(sequence.missing, self._chunk, most))
        self._tokens -= count
        self._scored += count if sequence.unscored else 0
        return count


def _waits_for_leader(sequence: Sequence) -> bool:
    """Whether the first sample will compute the prompt that this one shares."""
    leader = sequence.leader
    if leader is None or leader.state == "finished" or leader.generated:
        return False
    return leader.kept < len(sequence.window) - 1


def _common(ids: list[int], others: list[int], most: int) -> int:
    """How many of the first `most` ids are the same."""
    same, different = 0, most + 1
    while different - same > 1:
        middle = (same + different) // 2
        if ids[same:middle] == others[same:middle]:
            same = middle
        else:
            different = middle
    return same
