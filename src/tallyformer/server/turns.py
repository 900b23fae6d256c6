"""Requests that only read take turns: a few of a key at once, the others wait, a bounded number."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

from starlette.requests import Request

from tallyformer.server.api_error import ApiError

AT_ONCE = 4
"""Of one key. More would only take the threads and the disk from others."""
MOST_WAITING = 64


class Turns:
    """Turns of every key by itself."""

    def __init__(self) -> None:
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE)
        )
        self._here: Counter[str] = Counter()

    async def take(self, request: Request) -> AsyncIterator[None]:
        """One turn, as a route declares it: `dependencies=[Depends(turns.take)]`.

        Raises:
            ApiError: 429, as many of this key wait as may.
        """
        owner = request.state.owner
        if self._here[owner] >= AT_ONCE + MOST_WAITING:
            raise ApiError(
                429,
                f"This key may have {AT_ONCE + MOST_WAITING} requests of this kind at once. Wait "
                "for one to end",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self._here[owner] += 1
        try:
            async with self._places[owner]:
                yield
        finally:
            self._here[owner] -= 1
            if not self._here[owner]:
                del self._here[owner], self._places[owner]
