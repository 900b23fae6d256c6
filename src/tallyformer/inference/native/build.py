"""The native library as a file: shipped with the package, or built once and kept.

A build needs a C++ compiler: `$CXX`, one of the system, or the Python package `ziglang`. Nothing
else is needed, neither Python's headers nor a build system: the library is plain C functions.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tallyformer.errors import UsageError

SOURCE = Path(__file__).parent / "source"
SHIPPED = Path(__file__).parent / "shipped"
"""Where a wheel has the library."""
CACHE_VARIABLE = "TALLYFORMER_CACHE"
HOW_TO_GET = (
    "Install a C++ compiler (Debian: apt install g++; or, as a Python package: pip install ziglang)"
)

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma")
_KERNELS: dict[str, tuple[str, ...]] = {
    "avx512_bf16": (*_AVX512, "-mavx512bf16"),
    "avx512_vnni": _AVX512,
    "avx2": ("-mavx2", "-mfma"),
}
"""Kernels for x86-64 beside the portable ones; one that a compiler cannot build is left out."""
_X86 = ("x86_64", "AMD64")
_SECONDS = 300
"""That a whole build may take; most take 30 on two cores."""
_LONGEST_REASON = 300
"""Letters of what a compiler says."""
_SCRATCH = ".building-"
_FULL = os.strerror(errno.ENOSPC)
_NAME = "libtally"
_SEAL = hashlib.sha256().digest_size


class BuildError(Exception):
    """Why there is no library, and what to do: one line."""


def library_file() -> Path:
    """The library of these sources, shipped, kept from before, or built now.

    Raises:
        BuildError: there is no compiler, it fails, or nothing can be kept.
    """
    name = f"{_NAME}-{_fingerprint()}.so"
    if (SHIPPED / name).is_file():
        return SHIPPED / name
    folder = _cache()
    kept, failed = folder / name, folder / f"{name}.failed"
    if _is_whole(kept):
        return kept
    compiler = find_compiler()
    _try_to_write(folder)
    with _alone_in(folder):
        if _is_whole(kept):
            return kept
        if reason := _failed_before(failed, compiler):
            raise BuildError(reason)
        try:
            build(kept, compiler, sealed=True)
        except BuildError as error:
            if not _passes(error):
                with contextlib.suppress(OSError):
                    failed.write_text(f"{_identity(compiler)}\n{error}\n", encoding="utf-8")
            raise
    return kept


def is_built() -> bool:
    """Whether `library_file` would find a library without building one."""
    name = f"{_NAME}-{_fingerprint()}.so"
    try:
        return (SHIPPED / name).is_file() or _is_whole(_cache() / name)
    except BuildError:
        return False


def failed_before() -> str | None:
    """Why the compiler that is here failed the last time, so that it is not tried again.

    Raises:
        BuildError: there is none, or nothing can be kept.
    """
    return _failed_before(_cache() / f"{_NAME}-{_fingerprint()}.so.failed", find_compiler())


def find_compiler() -> list[str]:
    """The command of a C++ compiler.

    Raises:
        BuildError: there is none.
    """
    if chosen := os.environ.get("CXX", "").strip():
        try:
            command = shlex.split(chosen)
        except ValueError as error:  # a quotation mark without its second
            raise BuildError(f"CXX: {chosen}: is not a command ({error}). {HOW_TO_GET}") from None
        if shutil.which(command[0]) is None:
            raise BuildError(f"CXX: {chosen}: there is no such program. {HOW_TO_GET}")
        return command
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        # Unlike the others it would use all that this processor has, in the portable kernels too.
        return [sys.executable, "-m", "ziglang", "c++", "-mcpu=baseline"]
    raise BuildError(f"no C++ compiler was found. {HOW_TO_GET}")


def build(into: Path, compiler: Sequence[str] | None = None, *, sealed: bool = False) -> None:
    """Compile and link the library; the file is there whole or not at all.

    Several processes may do so at the same time, and be killed at any.

    Args:
        into: the file.
        compiler: its command; None takes `find_compiler`'s.
        sealed: end the file with the checksum of what stands before, which loaders do not read.

    Raises:
        BuildError: the compiler fails, takes too long, or nothing can be written.
    """
    compile_ = _Compiler(list(compiler or find_compiler()))
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        _sweep(into.parent)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=into.parent) as scratch:
            built = Path(scratch) / into.name
            compile_.link(built, _compile_all(compile_, Path(scratch)))
            content = built.read_bytes()
            with built.open("wb") as file:
                file.write(content + (_checksum(content) if sealed else b""))
                file.flush()
                os.fsync(file.fileno())
            built.chmod(0o755)
            built.replace(into)
    except OSError as error:
        raise _not_writable(into.parent, error) from error


def _sweep(folder: Path) -> None:
    """Delete what builds that were killed have left."""
    for left in folder.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * _SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _compile_all(compile_: _Compiler, scratch: Path) -> list[Path]:
    optional = _KERNELS if platform.machine() in _X86 else {}
    units = [p for p in sorted(SOURCE.glob("*.cpp")) if p.stem[len("kernels_") :] not in _KERNELS]
    units.remove(SOURCE / "dispatch.cpp")

    def compiled(unit: Path, flags: Sequence[str] = ()) -> Path:
        to = scratch / f"{unit.stem}.o"
        compile_([*_FLAGS, *flags, "-c", str(unit)], to)
        return to

    def compiled_kernels(name: str) -> Path | None:
        try:
            return compiled(SOURCE / f"kernels_{name}.cpp", _KERNELS[name])
        except BuildError:
            return None

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as workers:
        kernels = list(workers.map(compiled_kernels, optional))
        objects = list(workers.map(compiled, units))
    there = [name for name, made in zip(optional, kernels, strict=True) if made]
    flags = [f"-DTALLY_{name.upper()}" for name in there]
    objects.append(compiled(SOURCE / "dispatch.cpp", flags))
    return [*objects, *(made for made in kernels if made)]


class _Compiler:
    """A compiler's command; all that it does for one library has to be done in `_SECONDS`."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._until = time.monotonic() + _SECONDS

    def __call__(self, arguments: Sequence[str], into: Path) -> None:
        """Have it make a file.

        Raises:
            BuildError: it fails, makes none, or there is no time left.
        """
        name = self._command[0]
        left = max(0.0, self._until - time.monotonic())
        try:
            if not left:
                raise subprocess.TimeoutExpired(name, _SECONDS)
            done = _run([*self._command, *arguments, "-o", str(into)], left)
        except subprocess.TimeoutExpired:
            raise BuildError(f"{name}: not done after {_SECONDS} s. {HOW_TO_GET}") from None
        except (OSError, ValueError) as error:  # no such program, or no name of one
            raise BuildError(f"{name}: cannot be run ({error}). {HOW_TO_GET}") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
            reason = (lines or done.stderr.splitlines() or [f"status {done.returncode}"])[0]
            fix = f"{HOW_TO_GET}; GCC 10 or Clang 11 is new enough"
            if _FULL in done.stderr:
                fix = f"Free space there and in {tempfile.gettempdir()}"
            raise BuildError(
                f"the native library cannot be built: {reason.strip()[:_LONGEST_REASON]}. {fix}"
            )
        if not into.is_file():
            raise BuildError(f"{name}: made no {into.name}. {HOW_TO_GET}")

    def link(self, into: Path, objects: Sequence[Path]) -> None:
        """With GCC's own libraries inside, so that none is needed at run time, where it can be."""
        plain = ["-shared", "-pthread", *map(str, objects)]
        try:
            self([*plain, "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"], into)
        except BuildError:
            self(plain, into)


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command; what it has started ends with it where it takes too long."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, errors="replace", **pipes
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except BaseException:
            _kill(process.pid)
            raise
    return subprocess.CompletedProcess(command, process.returncode, "", said)


def _kill(process: int) -> None:
    """A process and those that it has started: a compiler is seldom one alone."""
    import psutil

    with contextlib.suppress(psutil.Error):
        first = psutil.Process(process)
        first.suspend()  # so that it starts no more of them
        for each in [*first.children(recursive=True), first]:
            with contextlib.suppress(psutil.Error):
                each.kill()


def _fingerprint() -> str:
    """Of the sources, the flags and the kind of machine."""
    seen = hashlib.sha256(f"{_FLAGS}{_KERNELS}{sys.platform}{platform.machine()}".encode())
    for path in sorted(SOURCE.iterdir()):
        seen.update(path.name.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()[:16]


def _is_whole(library: Path) -> bool:
    """Whether a sealed library is as it was built: a damaged one ends the process that runs it."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    return content[-_SEAL:] == _checksum(content[:-_SEAL])


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _failed_before(note: Path, compiler: Sequence[str]) -> str | None:
    """Why this compiler failed the last time, if it did."""
    try:
        who, reason = note.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # no such note, or not a whole one
        return None
    return reason if who == _identity(compiler) else None


def _passes(error: BuildError) -> bool:
    """Whether it is not the compiler's fault: the disk is full, say."""
    return isinstance(error.__cause__, OSError) or _FULL in str(error)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Whoever comes while another process builds waits for its library."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_to_write(folder: Path) -> None:
    """Before a build rather than after it."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: Exception) -> BuildError:
    return BuildError(f"{folder}: cannot be written ({error}). Name a folder in {CACHE_VARIABLE}")


def _identity(compiler: Sequence[str]) -> str:
    """One line that changes when the compiler does."""
    try:
        changed = Path(shutil.which(compiler[0]) or compiler[0]).stat().st_mtime_ns
    except OSError:
        changed = 0
    return f"{shlex.join(compiler)} {changed}"


def _cache() -> Path:
    """A folder of this user's alone: what lies there is run."""
    given = os.environ.get(CACHE_VARIABLE, "").strip()
    base = os.environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
    folder = Path(given) if given else Path(base).expanduser() / "tallyformer"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except (OSError, RuntimeError) as error:
        raise _not_writable(folder, error) from error
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise BuildError(
            f"{folder}: others may write there. Name another folder in {CACHE_VARIABLE}"
        )
    return folder


def _main(arguments: Sequence[str]) -> None:
    """`python -m tallyformer.inference.native.build [FOLDER]`: build, for a wheel or beforehand."""
    if len(arguments) > 1:
        raise UsageError("usage: python -m tallyformer.inference.native.build [FOLDER]")
    try:
        if arguments:
            into = Path(arguments[0]) / f"{_NAME}-{_fingerprint()}.so"
            build(into)
        else:
            into = library_file()
    except BuildError as error:
        raise SystemExit(str(error)) from None
    print(into)


if __name__ == "__main__":
    _main(sys.argv[1:])
