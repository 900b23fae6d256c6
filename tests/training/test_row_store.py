"""Rows that several processes share are right in every interleaving, kills included."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tallyformer.errors import ArtifactError
from tallyformer.training.row_store import RowStore

from . import shared_rows
from .shared_rows import ROW, key, row

PROCESS = [sys.executable, str(Path(shared_rows.__file__))]


def store_in(folder: Path) -> RowStore:
    return RowStore(folder / "rows.bin", ROW, "Delete it")


def rows(*numbers: int) -> np.ndarray:
    return np.array([row(number) for number in numbers])


def start(file: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROCESS, str(file), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_share_rows_and_are_killed_leave_right_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.bin"
    draw = random.Random(0)
    for seed in range(0, 9, 3):
        together = [start(file, seed + n) for n in range(3)]
        for process in together:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        size = file.stat().st_size
        while file.stat().st_size < size + 50_000 and file.stat().st_size < 900_000:
            assert [process.poll() for process in together] == [None, None, None]
        draw.shuffle(together)
        for process in together:
            os.kill(process.pid, signal.SIGKILL)
            _, said = process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL, said
    store = store_in(tmp_path)
    store.look()
    stored = [n for n in range(shared_rows.ROWS) if key(n) in store]
    assert len(stored) > 300
    for number, found in zip(stored, store.read([key(n) for n in stored]), strict=True):
        assert (found["value"] == row(number)["value"]).all()
    assert file.stat().st_size // ROW.itemsize == len(stored)


def test_a_row_that_another_has_added_is_found_and_not_added_again(tmp_path: Path) -> None:
    one, two = store_in(tmp_path), store_in(tmp_path)
    one.add(rows(1, 2))
    two.add(rows(2, 3, 3))
    assert one.path.stat().st_size == 3 * ROW.itemsize
    assert key(3) not in one
    one.look()
    assert one.read([key(3), key(1)])["value"][:, 0].tolist() == [3000, 1000]


@pytest.mark.parametrize("torn", [1, ROW.itemsize - 1])
def test_what_a_kill_has_torn_is_written_over_while_others_are_at_work(
    tmp_path: Path, torn: int
) -> None:
    """The torn row of a third process lies behind rows of two that continue."""
    one, two = store_in(tmp_path), store_in(tmp_path)
    one.add(rows(1))
    with one.path.open("ab") as file:
        file.write(row(7).tobytes()[:torn])
    store_in(tmp_path).look()
    two.add(rows(2))
    one.add(rows(3))
    for store in (one, two, store_in(tmp_path)):
        store.look()
        assert store.read([key(1), key(2), key(3)])["value"][:, 0].tolist() == [1000, 2000, 3000]
        assert key(7) not in store


def test_a_row_of_another_key_is_never_returned(tmp_path: Path) -> None:
    """Two whole rows that have changed places, each with a right checksum."""
    store = store_in(tmp_path)
    store.add(rows(1, 2))
    data = store.path.read_bytes()
    store.path.write_bytes(data[ROW.itemsize :] + data[: ROW.itemsize])
    with pytest.raises(ArtifactError, match=r"rows\.bin: row 0 is damaged\. Delete it"):
        store.read([key(1)])


def test_a_flipped_bit_of_a_row_is_refused_or_the_row_is_not_found(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.add(rows(1))
    whole = store.path.read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        store.path.write_bytes(data)
        found = store_in(tmp_path)
        found.look()
        if key(1) in found:
            with pytest.raises(ArtifactError, match="damaged"):
                found.read([key(1)])
