"""What one key may ask for in a minute and at once; others' requests are never touched by it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string

from tallyformer.errors import UsageError
from tallyformer.server.api_error import ApiError, unavailable

REQUESTS, TOKENS = "requests", "tokens"


class RateLimits:
    """Limits a key on requests and tokens a minute, and on requests at once.

    Args:
        requests: a minute; None for any number.
        tokens: of prompts and longest answers a minute; None for any number.
        at_once: requests; None for any number.
        storage: memory://, or redis://HOST:PORT for several servers together.

    Raises:
        UsageError: there is no such storage.
    """

    def __init__(
        self, *, requests: int | None, tokens: int | None, at_once: int | None, storage: str
    ) -> None:
        self._kept_at = storage
        try:
            self._kept: Any = storage_from_string(f"async+{storage}", **_options(storage))
            self._limiter = SlidingWindowCounterRateLimiter(self._kept)
        except Exception:
            raise UsageError(
                "--rate-limit-storage: cannot be used. Give memory://, or redis://HOST:PORT with "
                "pip install 'tallyformer[scale]'"
            ) from None
        self._items: dict[str, RateLimitItem] = {
            name: RateLimitItemPerMinute(amount)
            for name, amount in ((REQUESTS, requests), (TOKENS, tokens))
            if amount is not None
        }
        self._at_once = at_once
        self._running: Counter[str] = Counter()

    async def charge(self, owner: str, tokens: int) -> dict[str, str]:
        """Count a request and its tokens; the headers that say what is left.

        Raises:
            ApiError: 429, a limit is reached; 503, what is counted cannot be reached.
        """
        costs = {REQUESTS: 1, TOKENS: tokens}
        try:
            # First asked, so that nothing is counted where a later limit is reached; then counted,
            # which tells whether another server was faster.
            for count in (self._limiter.test, self._limiter.hit):
                for name, item in self._items.items():
                    if not await count(item, owner, name, cost=min(costs[name], item.amount)):
                        raise await self._reached(owner, name)
            return await self._headers(owner)
        except StorageError:
            raise unavailable("The store of the limits does not answer", code="store") from None

    async def close(self) -> None:
        """Let go of the storage."""
        if _options(self._kept_at):
            await self._kept.bridge.storage.aclose()

    @contextlib.contextmanager
    def at_once(self, owner: str) -> Iterator[None]:
        """One more request of this key, as long as the block runs.

        Raises:
            ApiError: 429, as many as may run already do.
        """
        if self._at_once is not None and self._running[owner] >= self._at_once:
            raise ApiError(
                429,
                f"This key may have {self._at_once} requests at once. Wait for one to end",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self._running[owner] += 1
        try:
            yield
        finally:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]

    async def _reached(self, owner: str, name: str) -> ApiError:
        item = self._items[name]
        headers = await self._headers(owner)
        headers["Retry-After"] = headers[f"x-ratelimit-reset-{name}"].removesuffix("s")
        return ApiError(
            429,
            f"This key may have {item.amount} {name} a minute. Send this again after the seconds "
            "in Retry-After",
            code="rate_limit_exceeded",
            headers=headers,
        )

    async def _headers(self, owner: str) -> dict[str, str]:
        headers = {}
        for name, item in self._items.items():
            stats = await self._limiter.get_window_stats(item, owner, name)
            seconds = max(1, math.ceil(stats.reset_time - time.time()))
            headers[f"x-ratelimit-limit-{name}"] = str(item.amount)
            headers[f"x-ratelimit-remaining-{name}"] = str(stats.remaining)
            headers[f"x-ratelimit-reset-{name}"] = f"{seconds}s"
        return headers


def _options(storage: str) -> dict[str, float | str | bool]:
    """Of the clients for Redis that the library takes the one that we need anyway."""
    if not storage.startswith("redis"):
        return {}
    return {"implementation": "redispy", "wrap_exceptions": True}
