"""A file or folder is whole or not there, also after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallyformer.artifacts.atomic import atomic_file, atomic_folder, recover_replaced, write_json
from tallyformer.errors import ArtifactError

WRITER = """
import sys, time
from pathlib import Path
from tallyformer.artifacts.atomic import atomic_file, atomic_folder
path = Path(sys.argv[2])
if sys.argv[1] == "file":
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
with atomic_folder(path) as folder:
    (folder / "a").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == b"writing\n"
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["result.partial"]


def test_an_exception_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_file(path, "w") as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_folder(path) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as folder:
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_and_leftovers_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    leftover = tmp_path / "model.partial"
    leftover.mkdir()
    (leftover / "stale").write_text("x")
    for content in ("a", "b"):
        with atomic_folder(path) as folder:
            (folder / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error_and_leaves_no_file(tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from tallyformer.artifacts.atomic import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x' * 5000)\n"
    )
    path = tmp_path / "big.bin"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(path)], capture_output=True, text=True, check=False
    )
    assert "ArtifactError" in done.stderr
    assert "cannot be written" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ArtifactError, match="runs"):
        write_json(tmp_path / "runs" / "x.json", 1)


def test_a_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_file(path) as file:
        file.write(b"1")
        time.sleep(0)
        assert not path.exists()
    assert path.read_bytes() == b"1"


def test_a_replacement_that_was_cut_off_is_put_back(tmp_path: Path) -> None:
    old = tmp_path / "best.old.partial"
    old.mkdir()
    (old / "x").write_text("kept", encoding="utf-8")
    recover_replaced(tmp_path / "best")
    assert (tmp_path / "best" / "x").read_text(encoding="utf-8") == "kept"
    recover_replaced(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_whoever_may_list_a_folder_may_read_its_files(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "open") as folder:
            (folder / "weights").touch(mode=0o600)
            (folder / "deeper").mkdir()
            (folder / "deeper" / "script").touch(mode=0o700)
    finally:
        os.umask(umask)
    assert (tmp_path / "open" / "weights").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "open" / "deeper" / "script").stat().st_mode & 0o777 == 0o740
