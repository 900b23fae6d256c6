"""What one key may ask for in a minute and at once; others' requests are never touched by it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string

from tallyformer.errors import UsageError
from tallyformer.server.api_error import ApiError

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
        try:
            self._limiter = SlidingWindowCounterRateLimiter(storage_from_string(f"async+{storage}"))
        except Exception:
            raise UsageError(
                "--rate-limit-storage: cannot be used. Give memory://, or redis://HOST:PORT with "
                "the package redis installed"
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
            ApiError: 429, a limit is reached; nothing is counted then.
        """
        costs = {REQUESTS: 1, TOKENS: tokens}
        for name, item in self._items.items():
            cost = min(costs[name], item.amount)
            if not await self._limiter.test(item, owner, name, cost=cost):
                raise await self._reached(owner, name)
        for name, item in self._items.items():
            await self._limiter.hit(item, owner, name, cost=min(costs[name], item.amount))
        return await self._headers(owner)

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
