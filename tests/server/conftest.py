"""A real server on a free port of this machine, with a tiny real model."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from tallyformer.server.drain import Drain
from tallyformer.server.keys import digest_of
from tallyformer.server.models import Models
from tallyformer.server.run import uvicorn_config
from tallyformer.server.settings import ServerSettings

from ..inference.conftest import tally, tally_folder, tokenizer  # noqa: F401  (fixtures)

KEY = "tf-the-key-of-a-test"
PATIENCE = 120


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        url: where.
        app: the application.
        drain: begins its end.
    """

    url: str
    app: Any
    drain: Drain

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def client(self, **settings: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=PATIENCE, **settings)

    def wait_until_ready(self) -> None:
        until(lambda: httpx2.get(self.url + "/ready", timeout=PATIENCE).status_code == 200)


def as_it_is(server: Running, path: str) -> tuple[int, bytes]:
    """Status and body of a GET whose path no client has tidied up."""
    connection = HTTPConnection(*server.address)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens."""
    limit = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


@contextlib.contextmanager
def running(
    settings: ServerSettings,
    prepare: Callable[[Any], object] = lambda app: None,
    models: Models | None = None,
) -> Iterator[Running]:
    """A server in a thread of this process; it ends with the block.

    `prepare` may add routes to the application; `models` are those of the settings by default.
    """
    drain = Drain()
    config = uvicorn_config(settings, models, drain)
    prepare(config.app)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        host, port = listener.getsockname()
        until(lambda: server.started)
        try:
            yield Running(f"http://{host}:{port}", config.app, drain)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def keyed(tally_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:  # noqa: F811
    """A server that wants a key, ready."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# of a test\nalice sha256:{digest_of(KEY)}\n")
    settings = ServerSettings(models={"tiny": tally_folder}, api_key_file=keys)
    with running(settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="session")
def served(tally_folder: Path) -> Iterator[Running]:  # noqa: F811
    """A server without keys, ready."""
    settings = ServerSettings(
        models={"tiny": tally_folder}, allowed_origins=("http://page.example",)
    )
    with running(settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def http(served: Running) -> Iterator[httpx2.Client]:
    with served.client() as client:
        yield client
