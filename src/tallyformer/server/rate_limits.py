"""What one key may ask for in a minute and at once; others' requests are never touched by it."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.requests import Request
from starlette.responses import Response

from tallyformer.errors import UsageError
from tallyformer.server.api_error import ApiError, unavailable

REQUESTS, TOKENS = "requests", "tokens"
_LOGGER = logging.getLogger("tallyformer.server")
STORE_PATIENCE = {"socket_timeout": 5.0, "socket_connect_timeout": 3.0}
"""Seconds, as the client for Redis takes them."""
_WEIGHT = 0.1
"""Of the newest request's time in the running mean."""


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """What a key has used, as a sliding window counts it.

    What was used in the minute before counts by the share of it that is within the last 60 seconds.

    Attributes:
        seconds: its length.
        before: used in the last whole minute.
        now: used in the current one.
        left: seconds until the current one ends.
    """

    seconds: float
    before: int
    now: int
    left: float

    def used(self, later: float = 0.0) -> float:
        """What counts as used in so many seconds, if nothing is added."""
        if later < self.left:
            return self.before * (self.left - later) / self.seconds + self.now
        return self.now * max(0.0, self.left + self.seconds - later) / self.seconds

    @property
    def until_unused(self) -> float:
        """Seconds until nothing counts as used."""
        if self.now:
            return self.left + self.seconds
        return self.left if self.before else 0.0

    def until_room(self, room: float) -> float:
        """Seconds until at most so much counts as used."""
        if self.used() <= room:
            return 0.0
        if self.now <= room:
            return self.left - (room - self.now) * self.seconds / self.before
        return self.left + self.seconds - room * self.seconds / self.now


class RateLimits:
    """Limits a key on requests and tokens a minute, and on requests at once.

    Args:
        requests: a minute; None for any number.
        tokens: of prompts and longest answers a minute; None for any number.
        at_once: requests; None for any number.
        storage: memory://, or redis://HOST:PORT for several servers together.
        clock: seconds that never go back.

    Raises:
        UsageError: there is no such storage.
    """

    def __init__(
        self,
        *,
        requests: int | None,
        tokens: int | None,
        at_once: int | None,
        storage: str,
        clock: Callable[[], float] = time.monotonic,
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
        self._clock = clock
        self._request_seconds = 1.0

    async def charge(self, owner: str, tokens: int) -> dict[str, str]:
        """Count a request and its tokens; the headers that say what is left.

        Raises:
            ApiError: 429, a limit is reached; 503, what is counted cannot be reached.
        """
        return await self._charge(owner, {REQUESTS: 1, TOKENS: tokens})

    @contextlib.asynccontextmanager
    async def beside(self, owner: str) -> AsyncIterator[dict[str, str]]:
        """One request that asks for no answer, as long as the block runs; the headers of `charge`.

        As many of these are allowed as of those that ask for answers, and they are counted apart: a
        page that counts tokens while its user types does not take the user's answers away.

        Raises:
            ApiError: as for `charge` and `at_once`.
        """
        apart = f"{owner} beside"  # no key has a name like this
        with self.at_once(apart):
            yield await self._charge(apart, {REQUESTS: 1})

    async def count_beside(self, request: Request, response: Response) -> AsyncIterator[None]:
        """`beside` as a route declares it: `dependencies=[Depends(limits.count_beside)]`.

        Raises:
            ApiError: as for `beside`.
        """
        async with self.beside(request.state.owner) as left:
            response.headers.update(left)
            yield

    async def _charge(self, owner: str, costs: Mapping[str, int]) -> dict[str, str]:
        items = {name: item for name, item in self._items.items() if name in costs}
        try:
            # First asked, so that nothing is counted where a later limit is reached; then counted,
            # which tells whether another server was faster.
            for count in (self._limiter.test, self._limiter.hit):
                for name, item in items.items():
                    cost = min(costs[name], item.amount)
                    if not await count(item, owner, name, cost=cost):
                        raise await self._reached(owner, items, name, cost)
            return await self._headers(owner, items)
        except StorageError:
            raise _away() from None

    async def check(self) -> None:
        """Whether what is counted can be reached.

        Raises:
            ApiError: 503, it cannot.
        """
        if self._items and not await self._kept.check():
            raise _away()

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
                headers={"Retry-After": _whole(self._request_seconds / self._at_once)},
            )
        began = self._clock()
        self._running[owner] += 1
        try:
            yield
        finally:
            self._request_seconds += _WEIGHT * (self._clock() - began - self._request_seconds)
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]

    async def _reached(
        self, owner: str, items: Mapping[str, RateLimitItem], name: str, cost: int
    ) -> ApiError:
        item = items[name]
        headers = await self._headers(owner, items)
        window = await self._window(item, owner, name)
        headers["Retry-After"] = _whole(window.until_room(item.amount - cost))
        return ApiError(
            429,
            f"This key may have {item.amount} {name} a minute. Send this again after the seconds "
            "in Retry-After",
            code="rate_limit_exceeded",
            headers=headers,
        )

    async def _headers(self, owner: str, items: Mapping[str, RateLimitItem]) -> dict[str, str]:
        headers = {}
        for name, item in items.items():
            window = await self._window(item, owner, name)
            left = max(0, item.amount - math.floor(window.used()))
            headers[f"x-ratelimit-limit-{name}"] = str(item.amount)
            headers[f"x-ratelimit-remaining-{name}"] = str(left)
            headers[f"x-ratelimit-reset-{name}"] = f"{_whole(window.until_unused)}s"
        return headers

    async def _window(self, item: RateLimitItem, owner: str, name: str) -> SlidingWindow:
        seconds = item.get_expiry()
        key = item.key_for(owner, name)
        before, old, now, kept = await self._kept.get_sliding_window(key, seconds)
        # What is used now is kept until the end of the next window, in which it still counts.
        left = max(0.0, kept - seconds) if kept else old
        return SlidingWindow(seconds=seconds, before=before, now=now, left=left)


def _away() -> ApiError:
    fields = {"option": "--rate-limit-storage"}
    _LOGGER.error("the store of the limits does not answer", extra={"fields": fields})
    return unavailable("The store of the limits does not answer", code="store")


def _whole(seconds: float) -> str:
    """Seconds as a header has them: whole ones, never too few, and one at least."""
    return str(max(1, math.ceil(seconds)))


def _options(storage: str) -> dict[str, float | str | bool]:
    """Of the clients for Redis that the library takes the one that we need anyway."""
    if not storage.startswith("redis"):
        return {}
    return {"implementation": "redispy", "wrap_exceptions": True, **STORE_PATIENCE}
