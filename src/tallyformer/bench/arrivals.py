"""When the requests of an open loop are due: a Poisson process, reproducible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from tallyformer.keyed_random import key_of, uniform_at


def poisson_times(rate: float, *key: int | str) -> Iterator[float]:
    """Seconds from the start at which requests are due, without end.

    The times between them are independent and exponential, so requests bunch as those of people
    who know nothing of each other do.

    Args:
        rate: requests a second on average, above 0.
        key: gives the same times again, but for their scale: at twice the rate they come in half
            the time.
    """
    stream = key_of("arrivals", *key)
    due = 0.0
    for number in itertools.count():
        due -= math.log1p(-uniform_at(stream, number)) / rate
        yield due
