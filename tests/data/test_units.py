"""A unit that a run resumes with is whole, or named with the fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tallyformer.data.units import Unit, read_digests, read_unit, write_unit
from tallyformer.errors import ArtifactError


def unit() -> Unit:
    return Unit(
        tokens=np.arange(60, dtype="<u2"),
        lengths=np.array([40, 20], dtype=np.int64),
        text_bytes=np.array([99, 50], dtype=np.int64),
        digests=np.arange(4, dtype="<u8").reshape(2, 2),
        validation=np.array([False, True]),
        origins=np.zeros((2, 2), dtype=np.uint64),
        rows=3,
        dropped={"empty": 1},
    )


def same(one: Unit, two: Unit) -> bool:
    return all(np.array_equal(value, vars(two)[name]) for name, value in vars(one).items())


def test_a_damaged_unit_is_one_line_and_never_used(tmp_path: Path) -> None:
    file = tmp_path / "000-00000000.npz"
    write_unit(file, unit())
    assert same(read_unit(file), unit())
    whole = file.read_bytes()
    shapes = [b"", b"PK", b"null", whole[:-1], whole[:100], bytes(len(whole))]
    flipped = (whole[:n] + bytes([whole[n] ^ 16]) + whole[n + 1 :] for n in range(0, len(whole), 9))
    refused = 0
    for content in (*shapes, *flipped):
        file.write_bytes(content)
        try:
            assert same(read_unit(file), unit())
            assert np.array_equal(read_digests(file), unit().digests)
        except ArtifactError as error:
            refused += 1
            assert str(file) in str(error) and "\n" not in str(error)
    assert refused > 50
