"""Text as it is generated: ids in, whole characters out."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tallyformer.token_ids import checked_id, checked_ids


class StreamDecoder:
    """Turns ids into text one at a time and never emits half a UTF-8 character.

    The pieces, joined, equal `Tokenizer.decode` of all ids. Bytes that are not UTF-8 become U+FFFD.

    Args:
        bytes_of_id: the bytes that each id stands for; empty for control tokens.
    """

    def __init__(self, bytes_of_id: Sequence[bytes]) -> None:
        self._bytes_of_id = bytes_of_id
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # Whether it may hold the beginning of a character.
        self._waits = False

    def push(self, token_id: int) -> str:
        """Take one id; return the characters that are complete now, possibly none.

        Raises:
            InvalidIdError: it is not an id of the vocabulary.
        """
        text_bytes = self._bytes_of_id[checked_id(token_id, len(self._bytes_of_id))]
        if text_bytes.isascii() and not self._waits:  # what the decoder does, at once
            return text_bytes.decode()
        return self._decoded(text_bytes)

    def push_all(self, ids: Sequence[int]) -> str:
        """Take several ids, as `push` does one after another; return their pieces, joined.

        Raises:
            InvalidIdError: as for `push`; none of them is taken then.
        """
        table = self._bytes_of_id
        return self._decoded(b"".join([table[i] for i in checked_ids(ids, len(table))]))

    def finish(self) -> str:
        """Return what is left, an unfinished character as U+FFFD, and start again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._waits = False
        return rest

    def _decoded(self, text_bytes: bytes) -> str:
        text = self._decoder.decode(text_bytes)
        self._waits = self._decoder.getstate()[0] != b""
        return text
