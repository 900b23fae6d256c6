"""Stop strings in a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text on until a stop string is complete, holding back what may become one.

    The result does not depend on how the text is cut into pieces: the match that ends first
    wins, and of those the one that begins first, as if the text came character by character.

    Args:
        stops: the stop strings, none empty.

    Attributes:
        matched: a stop string has been seen; nothing is passed on after it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string matches everywhere"
        self._stops = tuple(stops)
        # What a text must have for any of them to begin in it.
        self._firsts = tuple({stop[0] for stop in stops})
        self._held = ""
        self.matched = False

    def push(self, text: str) -> str:
        """Take a piece of text; return what surely stands before any stop string."""
        if not self._stops:
            return text
        if self.matched:
            return ""
        self._held += text
        for first in self._firsts:
            if first in self._held:
                break
        else:
            return self.finish()
        start = self._first_match()
        if start is not None:
            self.matched = True
            passed, self._held = self._held[:start], ""
            return passed
        keep = self._possible_start()
        cut = len(self._held) - keep
        passed, self._held = self._held[:cut], self._held[cut:]
        return passed

    def finish(self) -> str:
        """Return what was held back: the text has ended, so it is not a stop string."""
        rest, self._held = self._held, ""
        return rest

    def _first_match(self) -> int | None:
        """Where the match that ends first begins."""
        found = [(self._held.find(stop), len(stop)) for stop in self._stops]
        matches = [(start + length, start) for start, length in found if start >= 0]
        return min(matches)[1] if matches else None

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins some stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
