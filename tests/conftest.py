"""Settings of every test."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from .artifacts.damage import damages
from .fake_hub import FakeHub, fake_hub
from .small_run import (  # noqa: F401  (fixtures)
    _prepared,
    _pretrained,
    _tuned,
    make_recipe,
    prepared,
    pretrained,
    texts,
    tuned,
)
from .tiny_run import tiny  # noqa: F401

GPU_TESTS_ON = "TALLYFORMER_GPU_TESTS_ON"
"""Set to cpu, the tests marked `gpu` run there: a rehearsal that shows slips in their code."""

# Time limits of single examples say nothing on a machine that others use too.
settings.register_profile("tallyformer", deadline=None)
settings.load_profile("tallyformer")


# With `nohup` in front of them the tests, and all that they start, would ignore it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_LONGEST = "test_flows_in_a_browser"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test is the first: as one of the last it would be waited for by all."""
    items.sort(key=lambda item: item.name != _LONGEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    marked = item.get_closest_marker("gpu") is not None
    if marked and not torch.cuda.is_available() and GPU_TESTS_ON not in os.environ:
        pytest.skip("needs a GPU")


@pytest.fixture
def gpu() -> torch.device:
    """The device of a test marked `gpu`."""
    return torch.device(os.environ.get(GPU_TESTS_ON, "cuda"))


@pytest.fixture
def shapes_of_damage() -> dict[str, Callable[[Path], None]]:
    """Each kind of damage to a whole file of JSON, by name."""
    return dict(damages())


@pytest.fixture
def hub_here() -> Iterator[FakeHub]:
    """A hub on this machine; set `HF_ENDPOINT` to its `url`."""
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of its own, with options of tmpfs such as "size=64k" or "ro".

    Only root may mount one; for others the test is skipped.
    """
    with contextlib.ExitStack() as mounted:

        def make(options: str) -> Path:
            place = tmp_path / "disk"
            place.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
            if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
                pytest.skip("may not mount a file system")
            mounted.callback(subprocess.run, ["umount", place], check=True)
            return place

        yield make


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Iterator[Path]:
    """A folder of a user who is not root, and the test runs as that user.

    Root reads and writes everything, so what a mode forbids shows for others alone. Root's
    temporary folder is closed to them, hence one of its own.
    """
    if os.geteuid():
        yield tmp_path
        return
    nobody = 65534
    place = Path(tempfile.mkdtemp(prefix="tallyformer-test-"))
    os.chown(place, nobody, nobody)
    os.setresuid(nobody, nobody, 0)  # the saved 0 leads back
    try:
        yield place
    finally:
        os.setresuid(0, 0, 0)
        shutil.rmtree(place)
