"""How much memory answers may take that are made faster than they are read.

An answer may be endless, with twenty log-probabilities a token, for a client that does not read.
All answers together are bounded: past that the largest one ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tallyformer.inference.outputs import Piece

_PIECE_BYTES = 500
_LOGPROB_BYTES = 200
"""As measured: a piece of one token, and each log-probability in it."""


@dataclass(eq=False)
class Kept:
    """What is kept of one answer.

    Attributes:
        give_up: ends the answer and lets go of what is kept of it.
        size: in bytes.
    """

    give_up: Callable[[], None]
    size: int = 0


class AnswerMemory:
    """What is kept of all answers.

    Args:
        most_bytes: of all together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._size = 0
        self._kept: set[Kept] = set()

    def begin(self, give_up: Callable[[], None]) -> Kept:
        """An answer begins; `give_up` is called if there is no room and it is the largest."""
        kept = Kept(give_up)
        self._kept.add(kept)
        return kept

    def grow(self, kept: Kept, size: int) -> None:
        """More of an answer is kept, or less where the size is negative."""
        if kept not in self._kept:
            return
        kept.size += size
        self._size += size
        while self._size > self._most:
            largest = max(self._kept, key=lambda one: one.size)
            self.end(largest)
            largest.give_up()

    def end(self, kept: Kept) -> None:
        """Nothing of an answer is kept any more."""
        if kept in self._kept:
            self._kept.discard(kept)
            self._size -= kept.size


def bytes_of(piece: Piece) -> int:
    """Roughly what a piece of an answer takes; a prompt's log-probabilities are bounded anyway."""
    entries = len(piece.logprobs)
    if entries:
        entries += sum(len(one.alternatives) for one in piece.logprobs)
    return _PIECE_BYTES + len(piece.text) + _LOGPROB_BYTES * entries
