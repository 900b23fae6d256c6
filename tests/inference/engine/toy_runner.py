"""A runner without a model: what follows is a hash of all ids that are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from tallyformer.inference.engine.runner import Choice, LogitsRow, Work


class ToyRunner:
    """It checks what is asked of it, and draws a few ids only, so that texts repeat themselves."""

    def __init__(
        self, vocab_size: int, context: int, *, slots: int = 64, chunk: int | None = None
    ) -> None:
        self.slots, self.prefill_chunk = slots, chunk
        self.steps: list[list[Work]] = []
        self.forks = 0
        self._vocab_size, self._context = vocab_size, context
        self._kept: dict[int, list[int]] = {}

    def compute(self, work: Sequence[Work]) -> list[int]:
        assert len({w.number for w in work}) == len(work) > 0
        self.steps.append(list(work))
        rows: list[int] = []
        for w in work:
            kept = self._kept.get(w.number, [])
            assert w.ids and 0 <= w.start <= len(kept) and 0 <= w.logits <= len(w.ids)
            assert all(0 <= i < self._vocab_size for i in w.ids)
            self._kept[w.number] = kept = kept[: w.start] + w.ids
            assert len(kept) <= self._context
            ends = range(len(kept) - w.logits + 1, len(kept) + 1)
            rows += [_hash(kept[:end]) for end in ends]
        assert len(self._kept) <= self.slots
        return rows

    def choose(self, logits: list[int], rows: Sequence[LogitsRow]) -> list[Choice]:
        return [self._choice(number, row) for number, row in zip(logits, rows, strict=True)]

    def fork(self, number: int, new: int, length: int) -> None:
        assert new not in self._kept and 1 <= length <= len(self._kept[number])
        self._kept[new] = self._kept[number][:length]
        self.forks += 1
        assert len(self._kept) <= self.slots

    def release(self, numbers: Collection[int]) -> None:
        for number in numbers:
            del self._kept[number]

    def clear(self) -> None:
        self._kept.clear()

    def _choice(self, number: int, row: LogitsRow) -> Choice:
        chosen = row.given
        if chosen is None:
            number += 0 if row.params.greedy else int(row.uniform * 3)
            number += sum(row.counts.values()) % 2 if row.params.presence_penalty else 0
            chosen = 5 + number % 3
            while not self._may_follow(chosen, row):
                chosen = (chosen + 1) % self._vocab_size
        if row.logprobs is None:
            return Choice(chosen)
        return Choice(chosen, -(_hash([number % 1000, chosen]) % 1000) / 100, ((number % 7, -0.5),))

    def _may_follow(self, token_id: int, row: LogitsRow) -> bool:
        if row.allowed is not None and not row.allowed[token_id // 32] >> token_id % 32 & 1:
            return False
        return token_id not in row.banned


def _hash(ids: Sequence[int]) -> int:
    digest = hashlib.blake2b(repr(list(ids)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little")
