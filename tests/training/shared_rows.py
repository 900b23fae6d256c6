"""A process that shares a row store with others.

    python shared_rows.py FILE SEED

adds random rows and reads random rows for ever, and ends with an error when one is wrong. It
prints a line when it has begun.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from tallyformer.training.row_store import RowStore, row_type

ROW = row_type([("value", "<u8", (40,))])
ROWS = 3000


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def row(number: int) -> np.ndarray:
    """What belongs to a key."""
    made = np.zeros(1, dtype=ROW)[0]
    made["key"] = np.frombuffer(key(number), dtype="<u8")
    made["value"] = number * 1000 + np.arange(40)
    return made


def some_rows(store: RowStore, draw: random.Random) -> None:
    """Add what is missing of a few rows, as a batch does, and read all of them."""
    wanted = draw.sample(range(ROWS), 5)
    if not all(key(n) in store for n in wanted):
        store.add(np.array([row(n) for n in wanted]))
    for number, found in zip(wanted, store.read([key(n) for n in wanted]), strict=True):
        assert (found["value"] == row(number)["value"]).all(), number


def main() -> None:
    store = RowStore(Path(sys.argv[1]), ROW, "Delete it")
    draw = random.Random(int(sys.argv[2]))
    some_rows(store, draw)
    print("begun", flush=True)
    while True:
        some_rows(store, draw)


if __name__ == "__main__":
    main()
