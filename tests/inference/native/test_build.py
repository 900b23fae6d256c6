"""The native library never stands in the way: built once where it can be, one line where not."""

from __future__ import annotations

import ctypes.util
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tallyformer.inference.native import build
from tallyformer.inference.native.available import library
from tallyformer.inference.native.build import BuildError, library_file
from tallyformer.inference.native.c_functions import load_library
from tallyformer.inference.native_model import library_problem


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TALLYFORMER_CACHE", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder


def _compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return shlex.quote(str(path))


def test_it_is_built_once_and_found_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not build.is_built()
    built = library_file()
    assert built.parent == cache and [p.name for p in cache.iterdir()] == [built.name]
    assert load_library(built).tally_kernels(None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert library_file() == built and build.is_built()


def test_a_library_that_a_wheel_brings_is_taken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHIPPED", tmp_path / "shipped")
    done = subprocess.run(
        [sys.executable, "-m", "tallyformer.inference.native.build", str(tmp_path / "shipped")],
        capture_output=True,
        text=True,
        check=True,
    )
    monkeypatch.setenv("PATH", "/nowhere")
    assert str(library_file()) == done.stdout.strip() and not cache.exists()


def test_without_a_compiler_one_line_says_how_to_get_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(BuildError) as caught:
        library_file()
    assert "no C++ compiler" in str(caught.value) and "pip install ziglang" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'x.cpp:1:2: fatal error: cannot open lanes.h' >&2; exit 1", "cannot open lanes.h"),
        ("exit 3", "status 3"),
        ("kill -9 $$", "status"),
    ],
)
def test_a_compiler_that_fails_is_named_once_and_not_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    log = tmp_path / "log"
    command = _compiler(tmp_path / "c++ broken", f"echo x >> {shlex.quote(str(log))}; {script}")
    monkeypatch.setenv("CXX", command)
    messages = []
    for _ in range(2):
        with pytest.raises(BuildError, match=said) as caught:
            library_file()
        messages.append(str(caught.value))
        tried = log.read_text(encoding="utf-8")
    assert messages[0] == messages[1] and "\n" not in messages[0]
    assert log.read_text(encoding="utf-8") == tried
    assert not list(cache.glob("*.so"))
    # Another compiler is tried.
    monkeypatch.setenv("CXX", _compiler(tmp_path / "another", "exit 9"))
    with pytest.raises(BuildError, match="status 9"):
        library_file()


def test_a_compiler_that_is_not_there_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++ -m64")
    with pytest.raises(BuildError, match=r"CXX: /nowhere/c\+\+ -m64: there is no such program"):
        library_file()


def test_a_compiler_that_is_no_command_is_a_reason_for_torch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++ '-m64")
    assert str(library_problem()).startswith("CXX: g++ '-m64: is not a command")


def test_kernels_that_a_compiler_does_not_know_are_left_out(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shlex.join(build.find_compiler())
    refuse = 'case "$*" in *-mavx512*) echo "error: unknown option" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", _compiler(tmp_path / "old", f'{refuse}\nexec {real} "$@"'))
    library = load_library(library_file())
    assert library.tally_kernels(None) in (b"avx2", b"portable")
    assert library.tally_kernels(b"avx512_bf16") is None
    assert library.tally_kernels(b"portable") == b"portable"


def test_a_folder_that_others_may_write_to_is_not_used(cache: Path) -> None:
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    with pytest.raises(BuildError, match="others may write there"):
        library_file()


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TALLYFORMER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BuildError, match="cannot be written"):
        library_file()


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYFORMER_CACHE", "/proc/self/fdinfo")
    monkeypatch.setenv("CXX", _compiler(tmp_path / "cc", f"touch {tmp_path}/called"))
    with pytest.raises(BuildError, match=r"^/proc/self/fdinfo: cannot be written .*TALLYFORMER_C"):
        library_file()
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("note", [b"\xff\xfe", b"", b"one line", b"\n\n\n"])
def test_a_damaged_note_of_a_failure_is_no_reason(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: bytes
) -> None:
    monkeypatch.setenv("CXX", _compiler(tmp_path / "cc", "exit 3"))
    with pytest.raises(BuildError):
        library_file()
    [left] = cache.iterdir()
    left.write_bytes(note)
    with pytest.raises(BuildError, match="status 3"):
        library_file()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_library_is_built_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Running it would end the process."""
    file = Path(library()._name)
    whole = file.read_bytes()
    (cache / file.name).parent.mkdir(mode=0o700)
    (cache / file.name).write_bytes(whole)
    assert library_file() == cache / file.name
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    spoilt = {"cut": whole[:1000], "flipped": flipped, "empty": b""}
    (cache / file.name).write_bytes(spoilt[damage])
    assert not build.is_built()
    monkeypatch.setenv("CXX", _compiler(tmp_path / "cc", "exit 9"))
    with pytest.raises(BuildError, match="status 9"):
        library_file()


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "libtally.so"
    path.write_bytes(b"\x7fELF not really")
    with pytest.raises(OSError, match="libtally"):
        load_library(path)
    with pytest.raises(OSError, match="tally_version"):
        load_library(Path(ctypes.util.find_library("m") or "libm.so.6"))


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """A compiler that takes a moment and links what was built before."""
    copy = f"cp {shlex.quote(library()._name)}"
    script = f"""
for last; do :; done
sleep 0.05
case "$*" in *-shared*) {copy} "$last.new"; mv "$last.new" "$last";; *) : > "$last";; esac"""
    return _compiler(tmp_path / "quick", script)


def test_a_build_that_is_killed_at_any_time_leaves_nothing_that_is_run(
    cache: Path, quick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", quick)
    program = "from tallyformer.inference.native.build import library_file as f; print(1); f()"
    for delay in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        with subprocess.Popen(
            [sys.executable, "-c", f"import sys; {program}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None and process.stdout.readline()
            time.sleep(delay)
            process.kill()
        assert not list(cache.glob("*.failed"))
        for kept in cache.glob("*.so"):
            assert build.is_built()
            kept.unlink()
    # What they left is deleted when it is old enough to be nobody's.
    left = list(cache.iterdir())
    monkeypatch.setattr(build, "_SECONDS", 30)
    for folder in left:
        os.utime(folder, (0, 0))
    assert load_library(library_file())
    assert [p.suffix for p in cache.iterdir()] == [".so"]


def test_of_processes_that_need_the_library_at_the_same_time_one_builds_it(
    cache: Path, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    counting = f'echo "$*" >> {shlex.quote(str(calls))}; exec {quick} "$@"'
    monkeypatch.setenv("CXX", _compiler(tmp_path / "c++", counting))
    program = "from tallyformer.inference.native.build import library_file; print(library_file())"
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    found = {process.communicate(timeout=300)[0].strip() for process in running}
    assert len(found) == 1 and load_library(Path(found.pop()))
    assert len(list(cache.iterdir())) == 1
    assert sum("dispatch.cpp" in call for call in calls.read_text().splitlines()) == 1


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_SECONDS", 1)
    started = tmp_path / "started"
    hangs = f"sleep 600 & echo $! >> {shlex.quote(str(started))}; wait"
    monkeypatch.setenv("CXX", _compiler(tmp_path / "hangs", hangs))
    with pytest.raises(BuildError, match="not done after 1 s"):
        library_file()
    left = [int(process) for process in started.read_text().split()]
    assert left
    until = time.monotonic() + 30  # a signal is sent at once and ends a process a little later
    while any(map(_runs, left)):
        assert time.monotonic() < until, left
        time.sleep(0.01)


def test_a_compiler_that_makes_nothing_and_says_nothing_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", _compiler(tmp_path / "cc", "exit 0"))
    with pytest.raises(BuildError, match="made no ") as caught:
        library_file()
    assert "\n" not in str(caught.value) and not list(cache.glob("*.so"))


def test_a_full_disk_is_no_reason_for_the_next_time(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "echo 'x.s: error: No space left on device' >&2; exit 1"
    monkeypatch.setenv("CXX", _compiler(tmp_path / "cc", full))
    with pytest.raises(BuildError, match=r"No space left.*Free space"):
        library_file()
    assert list(cache.iterdir()) == []
