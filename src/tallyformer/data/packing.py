"""Putting pieces of different length into rows of one length."""

from __future__ import annotations

import numpy as np

from tallyformer.keyed_random import permutation, random_numbers


def pack_rows(
    lengths: np.ndarray, capacity: int, key: tuple[int, ...] | None = None
) -> list[list[int]]:
    """Best-fit decreasing: each piece, longest first, goes into the fullest row it fits.

    It needs at most 11/9 of the least possible number of rows, plus a constant (Johnson 1974).
    How many rows come out depends on the lengths alone, so it is the same for every shuffle.

    Args:
        lengths: of each piece, 1 to `capacity`.
        capacity: of a row.
        key: decides how pieces of equal length are shuffled among rows, pieces within rows, and
            the rows; None keeps the given order.

    Returns:
        The pieces' numbers, row by row.
    """
    if len(lengths) and (lengths.max() > capacity or lengths.min() < 1):
        raise ValueError(f"lengths must be 1 to {capacity}")
    size = len(lengths)
    order = np.arange(size) if key is None else permutation(size, "packing", *key)
    order = order[np.argsort(-lengths[order], kind="stable")]
    rows: list[list[int]] = []
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if some row has room r, so the tightest fit is one bit operation
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(piece)
        if room > length:
            rows_with_room[room - length].append(row)
            rooms |= 1 << (room - length)
    if key is None:
        return rows
    rank = random_numbers(size, "order in rows", *key).tolist()
    order_of_rows = permutation(len(rows), "order of rows", *key).tolist()
    return [sorted(rows[row], key=rank.__getitem__) for row in order_of_rows]
