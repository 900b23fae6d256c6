from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.data.dedup import mark_first

# Few values, so that repetitions are common; large ones, so that every partition is met.
halves = st.sampled_from([0, 1, 2**32, 2**63, 2**63 + 1, 2**64 - 1])


@given(
    digests=st.lists(st.tuples(halves, halves), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    partition=st.sampled_from([1, 3, 1000]),
)
def test_the_first_of_equal_documents_stays_however_units_are_cut(
    digests: list[tuple[int, int]],
    cuts: list[int],
    partition: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    table = np.array(digests, dtype=np.uint64).reshape(-1, 2)
    units = np.split(table, sorted(min(c, len(table)) for c in cuts))
    folder = tmp_path_factory.mktemp("dedup")
    marks = mark_first(units, len(table), folder, partition_documents=partition)
    expected = [digest not in digests[:n] for n, digest in enumerate(digests)]
    assert [bool(b) for b in marks.read_bytes()] == expected
    assert [path.name for path in folder.iterdir()] == ["first"]


def test_leftovers_of_a_killed_run_do_not_count(tmp_path: Path) -> None:
    table = np.array([[1, 2], [3, 4]], dtype=np.uint64)
    (tmp_path / "hashes-000").write_bytes(np.array([1, 2, 0], dtype=np.uint64).tobytes())
    assert mark_first([table], 2, tmp_path).read_bytes() == b"\x01\x01"
