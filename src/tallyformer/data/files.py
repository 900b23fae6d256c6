"""Input files: finding them, and reading their bytes through any compression."""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import zstandard

from tallyformer.errors import DataError

COMPRESSIONS = (".gz", ".xz", ".zst")
KINDS = (".txt", ".md", ".jsonl", ".parquet", ".csv")
_READ = 1 << 20
_ZSTD_READ = 1 << 14  # small, because each piece is unpacked whole
_DAMAGE = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)


def kind_of(path: Path) -> str:
    """The suffix that decides how a file is read, without that of its compression.

    Raises:
        DataError: no reader knows it.
    """
    suffixes = path.suffixes
    kind = suffixes[-1] if suffixes else ""
    if kind in COMPRESSIONS and suffixes[-2:-1] == [".jsonl"]:
        return ".jsonl"
    if kind not in KINDS:
        raise DataError(
            f"{path}: no reader for this kind of file. Give {', '.join(KINDS)}, or .jsonl with "
            f"{', '.join(COMPRESSIONS)}"
        )
    return kind


def find_files(patterns: Sequence[str], data_root: str, source: str) -> list[Path]:
    """Files that the patterns name, in the order of patterns, then of names; each once.

    A pattern is looked up in `data_root`, and where nothing matches there, as it stands. Only
    its own characters are special, not those of `data_root`.

    Raises:
        DataError: a pattern matches nothing, or a folder.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        files = _matches(data_root, pattern) or _matches("", pattern)
        if not files:
            raise DataError(
                f"source {source!r}: no file matches {pattern!r} in {data_root!r}. Correct the "
                "path, or set data_root"
            )
        for file in files:
            found.setdefault(os.path.abspath(file), file)  # noqa: PTH100 - links stay links
    return list(found.values())


def _matches(folder: str, pattern: str) -> list[Path]:
    path = Path(folder) / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        raise DataError(f"{path}: is a folder. Name its files, for example {path}/**/*.txt")
    escaped = str(Path(glob.escape(folder)) / pattern)
    names = glob.glob(escaped, recursive=True)  # noqa: PTH207 - absolute patterns too
    return sorted(path for path in map(Path, names) if path.is_file())


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file for reading: its unpacked bytes, and the raw file (for its position).

    Raises:
        DataError: the file is missing, empty, not readable, or its compressed data are damaged
            or cut off (also while the block reads it).
    """
    try:
        with path.open("rb") as raw:
            if not raw.read(1):
                raise DataError(f"{path}: is empty. Remove it from the paths, or fetch it again")
            raw.seek(0)
            with contextlib.closing(_unpacked(path, raw)) as stream:
                yield stream, raw
    except _DAMAGE as error:
        raise DataError(
            f"{path}: compressed data are damaged or cut off ({error}). Fetch the file again"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the operating system does not hand out."""
    reason = error.strerror or str(error)
    return DataError(f"{path}: cannot be read ({reason}). Correct the path or its permissions")


def _unpacked(path: Path, raw: IO[bytes]) -> IO[bytes]:
    stream: Any = raw
    if path.suffix == ".gz":
        stream = gzip.GzipFile(fileobj=raw)
    elif path.suffix == ".xz":
        stream = lzma.LZMAFile(raw)  # noqa: SIM115 - closed by the caller
    elif path.suffix == ".zst":
        stream = _ZstdReader(raw)
    return io.BufferedReader(stream, _READ) if stream is not raw else raw


class _ZstdReader(io.RawIOBase):
    """Unpacks Zstandard frames, with windows up to 2 GiB, and notices a file that is cut off."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._fill():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _fill(self) -> bool:
        """Unpack one more piece; False at the end of the file."""
        packed = self._packed or self._raw.read(_ZSTD_READ)
        self._packed = b""
        if not packed:
            if self._frame is not None:
                raise EOFError("the last frame is not complete")
            return False
        if self._frame is None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
            self._frame = decompressor.decompressobj()
        self._ready = memoryview(self._frame.decompress(packed))
        if self._frame.eof:
            self._packed = self._frame.unused_data
            self._frame = None
        return True
