"""The pieces of `make install`, with the real package index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "get_pip.py"


def _without_pip(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def test_an_environment_made_without_pip_gets_it(tmp_path: Path) -> None:
    python = _without_pip(tmp_path / "venv")
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode != 0
    subprocess.run([python, SCRIPT], check=True)
    subprocess.run([python, "-m", "pip", "--version"], check=True)


def test_a_wheel_that_is_not_the_listed_one_is_refused(tmp_path: Path) -> None:
    """An index in a folder, with pip's file name and a checksum that is not the file's."""
    name = "pip-26.0-py3-none-any.whl"
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / name).write_bytes(b"not this one")
    (tmp_path / "pip" / "index.html").write_text(f'<a href="{name}#sha256={"0" * 64}">{name}</a>')
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout
        port = server.stdout.readline().split(" port ")[1].split()[0]
        environment = {**os.environ, "PIP_INDEX_URL": f"http://127.0.0.1:{port}"}
        done = subprocess.run(
            [sys.executable, SCRIPT], env=environment, capture_output=True, text=True
        )
        server.terminate()
    assert done.returncode == 1
    assert "is damaged" in done.stderr
