"""A recipe trains in a container, is looked at beside it, and is resumed after a kill."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallyformer.stages.run import write_recipe

from ..tiny_run import tiny_recipe
from .conftest import PATIENCE, Deployment, free_port, inspected, needs_engine

pytestmark = needs_engine
IMAGE = "tallyformer-train"
USER = 10001


def _recipe(folder: Path) -> None:
    """A tiny recipe and its texts, as the container sees them."""
    recipe = tiny_recipe(folder)
    long = recipe.pretrain.model_copy(update={"steps": 120, "evaluations": 12})
    changes = {"data_root": "/data", "pretrain": long}
    write_recipe(recipe.model_copy(update=changes), folder / "tiny.yaml")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"needs the image {IMAGE}: make image-train")
    folder = tmp_path_factory.mktemp("runs")
    _recipe(folder)
    os.chown(folder, USER, USER)
    environment = {
        "RECIPE": "/data/tiny.yaml",
        "NAME": "tiny",
        "RUNS": str(folder),
        "RUNS_PORT": f"127.0.0.1:{free_port()}",
    }
    project = Deployment(("compose.train.yaml",), environment)
    try:
        project.compose("up", "--detach", "--no-build")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


def _look(training: Deployment, path: str = "") -> Any:
    """What the Runs page is told; None while there is nothing."""
    url = f"http://{training.environment['RUNS_PORT']}/v1/runs/tiny{path}"
    try:
        answer = httpx2.get(url, timeout=PATIENCE)
    except httpx2.TransportError:
        return None
    return answer.json() if answer.status_code == 200 else None


def _until(training: Deployment, holds: Any) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, training.compose("logs")
        time.sleep(0.2)


def _train(training: Deployment) -> str:
    return training.compose("ps", "--all", "--quiet", "train").strip()


def _steps(training: Deployment) -> list[int]:
    return (_look(training, "/samples/pretrain") or {}).get("steps", [])


def test_it_is_seen_while_it_trains_and_goes_on_after_a_kill(training: Deployment) -> None:
    _until(training, lambda: len(_steps(training)) >= 2)
    assert _look(training)["state"] == "running"
    subprocess.run(["docker", "kill", _train(training)], check=True, capture_output=True)
    _until(training, lambda: _look(training)["state"] == "stopped")
    training.compose("up", "--detach", "--no-build")
    container = _train(training)
    _until(training, lambda: not inspected(container)["State"]["Running"])
    assert inspected(container)["State"]["ExitCode"] == 0, training.compose("logs", "train")
    seen = _look(training)
    assert seen["state"] == "finished" and seen["reports"]
    assert _steps(training) == list(range(10, 121, 10))
    (train, _) = _look(training, "/curves/pretrain")["parts"]
    assert train["steps"] == list(range(1, 121))
    page = httpx2.get(f"http://{training.environment['RUNS_PORT']}/runs", timeout=PATIENCE)
    assert page.status_code == 200 and "<title>TallyFormer</title>" in page.text


def test_neither_container_can_do_what_it_does_not_need(training: Deployment) -> None:
    for container in (_train(training), *training.containers("runs")):
        host = inspected(container)["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
        assert inspected(container)["Config"]["User"] == f"{USER}:{USER}"
        assert host["Memory"] > 0 and host["PidsLimit"] > 0
    program = "import os; print(os.access('/data', os.W_OK))"
    assert training.run("runs", program).strip() == "False"
