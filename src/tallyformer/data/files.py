"""Input files: finding them, and reading their bytes through any compression."""

from __future__ import annotations

import bz2
import contextlib
import glob
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import zstandard

from tallyformer.errors import DataError

COMPRESSIONS = (".gz", ".xz", ".zst", ".bz2")
TEXT_KINDS = (".txt", ".md")
JSON_KINDS = (".jsonl", ".ndjson", ".json")
CSV_KINDS = (".csv", ".tsv")
KINDS = (*TEXT_KINDS, *JSON_KINDS, *CSV_KINDS, ".parquet")
_READ = 1 << 20
_ZSTD_READ = 1 << 14  # small, because each piece is unpacked whole
_DAMAGE = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)


def kind_of(path: Path) -> str:
    """The suffix that decides how a file is read, in small letters, without its compression's.

    Raises:
        DataError: no reader knows it.
    """
    *_, outer, kind = "", "", *(suffix.lower() for suffix in path.suffixes)
    packed = kind in COMPRESSIONS
    if packed:
        kind = outer
    if kind == ".parquet" and packed:
        raise DataError(f"{path}: a Parquet file is compressed inside. Unpack it first")
    if kind not in KINDS:
        raise DataError(
            f"{path}: no reader for this kind of file. Give {', '.join(KINDS)}; all but Parquet "
            f"may be compressed ({', '.join(COMPRESSIONS)})"
        )
    return kind


def is_compressed(path: Path) -> bool:
    """Whether a file is unpacked while it is read."""
    return path.suffix.lower() in COMPRESSIONS


def find_files(patterns: Sequence[str], data_root: str, source: str) -> list[Path]:
    """Files that the patterns name, in the order of patterns, then of names; each once.

    A pattern is looked up in `data_root`, and where nothing matches there, as it stands. Only
    its own characters are special, not those of `data_root`.

    Raises:
        DataError: a pattern matches nothing, a folder alone, a link that leads nowhere or what is
            not a file, or it looks into a folder that cannot be read.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        try:
            files = _matches(data_root, pattern) or _matches("", pattern)
        except OSError as error:
            raise unreadable(Path(error.filename or pattern), error) from None
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
    escaped = Path(glob.escape(folder)) / pattern
    _check_folders(escaped)
    if path.is_file():
        return [path]
    if path.is_dir():
        raise DataError(f"{path}: is a folder. Name its files, for example {path}/**/*.txt")
    check_is_file(path)
    names = glob.glob(str(escaped), recursive=True)  # noqa: PTH207 - absolute patterns too
    paths = [path for path in sorted(map(Path, names)) if not path.is_dir()]
    for path in paths:
        check_is_file(path)
    return paths


def check_is_file(path: Path) -> None:
    """Refuse what stands in a folder and is neither a file nor a folder.

    Raises:
        DataError: a link that leads nowhere, a pipe, a socket or a device.
    """
    if not os.path.lexists(path) or path.is_file():
        return
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path}: is a link to {str(path.readlink())!r}, which is not there. Correct the link, "
            "or remove it"
        )
    raise DataError(f"{path}: is not a file that can be read twice. Save what it gives as a file")


def _check_folders(escaped: Path) -> None:
    """Refuse folders that a pattern looks into but this user cannot; `glob` passes over them."""
    for below, parent in zip((escaped, *escaped.parents), escaped.parents, strict=False):
        if not glob.has_magic(str(below)):
            return
        needed = os.R_OK | os.X_OK if glob.has_magic(below.name) else os.X_OK
        for name in glob.iglob(str(parent), recursive=True):  # noqa: PTH207
            if os.path.isdir(name) and not os.access(name, needed):  # noqa: PTH112
                raise DataError(
                    f"{name}: cannot be read (Permission denied). Allow it for this user, or name "
                    "another folder"
                )


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file for reading: its unpacked bytes, and the raw file (for its position).

    Raises:
        DataError: the file is missing, not readable, or its compressed data are damaged or cut
            off (also while the block reads it).
    """
    try:
        with path.open("rb") as raw, contextlib.closing(_unpacked(path, raw)) as stream:
            yield stream, raw
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    except OSError as error:
        if error.errno is None and is_compressed(path):  # what bz2 raises
            raise _damaged(path, error) from None
        raise unreadable(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: compressed data are damaged or cut off ({error}). Fetch the file again"
    )


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the operating system does not hand out."""
    reason = error.strerror or str(error)
    return DataError(f"{path}: cannot be read ({reason}). Correct the path or its permissions")


def _unpacked(path: Path, raw: IO[bytes]) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix not in _UNPACKERS:
        return raw
    stream: Any = _UNPACKERS[suffix](raw)
    return io.BufferedReader(stream, _READ)


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


_UNPACKERS: Mapping[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
    ".zst": _ZstdReader,
}
