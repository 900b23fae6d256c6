"""Server-sent events, as a client reads them (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import codecs

_LONGEST = 1 << 20
"""Letters of an event."""


class TooLongError(Exception):
    """What comes has no end of an event for more letters than any event has."""


class EventDecoder:
    """Bytes, however they are cut, to the data of whole events."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._data: list[str] = []

    def feed(self, received: bytes) -> list[str]:
        """The data of the events that are whole now; comments and other fields are dropped.

        Raises:
            TooLongError: an event does not end.
        """
        text = self._rest + self._decoder.decode(received)
        held = text.endswith("\r")  # its line feed may follow
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop()
        if held:
            # The last line end is undecided, so the line before it stays.
            self._rest = lines.pop() + "\r"
        events = [event for line in lines if (event := self._line(line)) is not None]
        if len(self._rest) + sum(map(len, self._data)) > _LONGEST:
            raise TooLongError
        return events

    def _line(self, line: str) -> str | None:
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            return None
        data, self._data = self._data, []
        return "\n".join(data) if data else None
