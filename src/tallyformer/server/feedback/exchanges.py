"""The newest answers and what they answered, in memory, so that they can be rated."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tallyformer.tokenizer.messages import Message

MOST_EXCHANGES = 10_000
MOST_CHARACTERS = 32 << 20


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A conversation and its answers.

    Attributes:
        owner: whose key it is.
        user: whom the client named.
        model: who answered.
        messages: the conversation, as it was sent.
        answers: the text of each choice.
    """

    owner: str
    user: str | None
    model: str
    messages: list[Message]
    answers: list[str]

    @property
    def size(self) -> int:
        """Characters."""
        return sum(map(len, self.answers)) + sum(len(m["content"]) for m in self.messages)


class Exchanges:
    """Keeps the newest within bounds of number and size; the oldest are forgotten."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Exchange] = OrderedDict()
        self._size = 0

    def remember(self, answer_id: str, exchange: Exchange) -> None:
        """Keep one, and forget the oldest if there is no room."""
        self._kept[answer_id] = exchange
        self._size += exchange.size
        while len(self._kept) > MOST_EXCHANGES or self._size > MOST_CHARACTERS:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size

    def get(self, answer_id: str, owner: str) -> Exchange | None:
        """One that is kept, for its own key."""
        found = self._kept.get(answer_id)
        return found if found is not None and found.owner == owner else None

    def forget(self, *, owner: str, user: str | None = None, answer_id: str | None = None) -> None:
        """Forget what a key asked: one answer, or all of a user."""
        for kept_id, kept in list(self._kept.items()):
            if kept.owner == owner and (kept_id == answer_id or (user and kept.user == user)):
                self._size -= self._kept.pop(kept_id).size
