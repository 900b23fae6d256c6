"""Text as it is generated: ids in, whole characters out."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tallyformer.token_ids import checked_id


class StreamDecoder:
    """Turns ids into text one at a time and never emits half a UTF-8 character.

    The pieces, joined, equal `Tokenizer.decode` of all ids. Bytes that are not UTF-8 become U+FFFD.

    Args:
        bytes_of_id: the bytes that each id stands for; empty for control tokens.
    """

    def __init__(self, bytes_of_id: Sequence[bytes]) -> None:
        self._bytes_of_id = bytes_of_id
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Take one id; return the characters that are complete now, possibly none.

        Raises:
            InvalidIdError: it is not an id of the vocabulary.
        """
        token_id = checked_id(token_id, len(self._bytes_of_id))
        return self._decoder.decode(self._bytes_of_id[token_id])

    def finish(self) -> str:
        """Return what is left, an unfinished character as U+FFFD, and start again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
