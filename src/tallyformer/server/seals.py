"""Addresses that open one thing for a while, for those who may know them.

A link that a browser follows carries no key. So whoever has a key is given an address that is
sealed: what it opens and until when, with a code that only this process can make.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

SECONDS = 3600
"""That an address is good for, at least."""


class Seals:
    """Makes and checks codes.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)

    def seal(self, *what: str) -> str:
        """A code for something, good until an hour after the end of this one."""
        until = (int(self._clock()) // SECONDS + 2) * SECONDS
        return f"{until}.{self._code(until, what)}"

    def opens(self, seal: str, *what: str) -> bool:
        """Whether a code is one for this, and still good."""
        until, _, code = seal.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) < 20):
            return False
        expected = self._code(int(until), what)
        return hmac.compare_digest(code.encode(), expected.encode()) and self._clock() < int(until)

    def _code(self, until: int, what: tuple[str, ...]) -> str:
        text = "\0".join((str(until), *what)).encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()
