"""The real compose files on a real engine, where one is given."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 300
ASKED = {"model": "sft", "messages": [{"role": "user", "content": "What is inflation?"}]}
LONG = {**ASKED, "stream": True, "ignore_eos": True, "temperature": 0}

needs_engine = pytest.mark.skipif(
    "TALLYFORMER_DEPLOYMENT" not in os.environ, reason="no engine is given: make test-deployment"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Deployment:
    """A compose project.

    Attributes:
        files: of compose, in the repository.
        environment: what they are told.
    """

    files: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def compose(self, *words: str, check: bool = True) -> str:
        """Standard output of `docker compose`."""
        files = [word for file in self.files for word in ("-f", file)]
        done = subprocess.run(
            ["docker", "compose", *files, *words],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def up(self, *words: str) -> None:
        try:
            self.compose("up", "--detach", "--wait", "--no-build", *words)
        except AssertionError as error:
            raise AssertionError(self.compose("logs")) from error

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def run(self, service: str, program: str) -> str:
        """What a program in Python prints inside of a service's first container."""
        return self.compose("exec", "--no-TTY", service, "python", "-c", program)

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.environment['HTTP_PORT']}"

    @property
    def api(self) -> str:
        return f"http://{self.environment['API_PORT']}"

    def ask(self, body: dict[str, Any] = ASKED, **settings: Any) -> httpx2.Response:
        url = self.page + "/v1/chat/completions"
        return httpx2.post(url, json=body, timeout=PATIENCE, **settings)


def inspected(what: str) -> Any:
    """An image or container, as the engine describes it."""
    done = subprocess.run(["docker", "inspect", what], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)[0]


@contextlib.contextmanager
def deployed(*files: str, **environment: str) -> Iterator[Deployment]:
    """A project that is up, and taken down with the block."""
    ports = {"HTTP_PORT": str(free_port()), "API_PORT": f"127.0.0.1:{free_port()}"}
    project = Deployment(files, {**ports, **environment})
    try:
        project.up()
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with deployed("compose.yaml") as project:
        yield project
