"""Wheels: with the native library for one kind of machine, without it for any."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tallyformer.inference.native.build import BuildError, find_compiler

ROOT = Path(__file__).parents[1]
NATIVE = "tallyformer/inference/native"


def _copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("shipped", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def _wheel(folder: Path) -> Path:
    out = folder / "dist"
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        out,
        ".",
    ]
    subprocess.run(command, cwd=folder, check=True)
    [wheel] = out.iterdir()
    return wheel


def test_with_the_library_it_is_for_one_machine_and_needs_no_compiler(tmp_path: Path) -> None:
    try:
        find_compiler()
    except BuildError as error:
        pytest.skip(str(error))
    folder = _copy(tmp_path)
    shipped = folder / "src" / NATIVE / "shipped"
    module = "tallyformer.inference.native.build"
    subprocess.run([sys.executable, "-m", module, shipped], check=True)
    wheel = _wheel(folder)
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    program = "from tallyformer.inference.native.available import *; print(available(), kernels())"
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "PATH": "/nowhere",
        "TALLYFORMER_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("None ") and not done.stderr
    assert not (tmp_path / "cache").exists()


def test_without_it_it_is_for_any_machine_and_holds_the_sources(tmp_path: Path) -> None:
    wheel = _wheel(_copy(tmp_path))
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert f"{NATIVE}/source/model.cpp" in names and f"{NATIVE}/source/lanes.h" in names
    assert not [name for name in names if name.endswith(".so")]
    built = [path for path in (ROOT / "src/tallyformer/server/page").rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT / "src")) for path in built} <= set(names) and built
