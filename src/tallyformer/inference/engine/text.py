"""From the ids of an answer to its pieces of text."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tallyformer.inference.outputs import FinishReason
from tallyformer.inference.stop import StopMatcher

if TYPE_CHECKING:
    from tallyformer.tokenizer.stream import StreamDecoder


class AnswerText:
    """Whole characters, up to a stop string, an id that ends the answer, or the last id.

    Args:
        decoder: turns ids into characters.
        stops: stop strings.
        end_ids: ids that end the answer.
        most: ids that the answer may have.
        at_end: nobody needs the text before the end. Where there are no stop strings it is made
            then, all at once.

    Attributes:
        finish_reason: None while the answer continues.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        stops: Collection[str],
        end_ids: Collection[int],
        most: int,
        *,
        at_end: bool = False,
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self._decoder = decoder
        self._stop = StopMatcher(tuple(stops))
        self._end_ids = end_ids
        self._left = most
        self._made_at_end = at_end and not stops
        # Ids whose text is made at the end.
        self._unread: list[int] = []
        self._made: list[str] = []

    @property
    def whole(self) -> str:
        """All text that has been made, that which is held back for a stop string included."""
        return "".join(self._made)

    def push(self, token_id: int) -> str:
        """Take an id; return the text that is certain now. It may set `finish_reason`."""
        self._left -= 1
        ends = token_id in self._end_ids
        if self._made_at_end:
            if not ends:
                self._unread.append(token_id)
                if self._left > 0:
                    return ""
            new = self._decoder.push_all(self._unread)
        else:
            new = "" if ends else self._decoder.push(token_id)
        self._made.append(new)
        text = self._stop.push(new)
        if self._stop.matched:
            self.finish_reason = "stop"
        elif ends or self._left <= 0:
            text += self._stop.push(self._decoder.finish()) + self._stop.finish()
            self.finish_reason = "stop" if ends or self._stop.matched else "length"
        return text
