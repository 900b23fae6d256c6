"""Shapes of damage that a file can have, for tests of what reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

SHAPES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "text": b'"text"',
    "number": b"1e999",
    "cut": b'{"stage": ',
    "not-json": b"stage: 1",
    "not-utf-8": b'{"stage": "\xe9"}',
    "utf-16": '{"stage": 1}'.encode("utf-16"),
    "nul": bytes(50),
    "deep-list": b"[" * 100_000 + b"]" * 100_000,
    "deep-object": b'{"a":' * 500 + b"1" + b"}" * 500,
    "half-deep": b'{"a":' * 150 + b"1" + b"}" * 150,
    "huge-number": b'{"format": ' + b"9" * 5000 + b"}",
    "large-number": b'{"format": ' + b"9" * 4000 + b"}",
    "nan": b'{"format": NaN, "stage": Infinity}',
    "surrogate": b'{"format": "\\ud800"}',
}


def put_shape(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def put_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


def damages() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Name and doing of each kind of damage to a whole file."""
    for name, content in SHAPES.items():
        yield name, lambda file, content=content: put_shape(file, content)  # type: ignore[misc]
    yield "folder", put_folder
    yield "dangling-link", put_dangling_link


def flipped_bits(file: Path, every: int = 7) -> Iterator[int]:
    """Flip one bit after the other in a file, every so many; each is restored before the next."""
    whole = file.read_bytes()
    for place in range(0, 8 * len(whole), every):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        file.write_bytes(data)
        yield place
    file.write_bytes(whole)
