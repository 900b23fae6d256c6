"""Several models: those that are loaded answer while the next one is being loaded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tallyformer.server.app import load_served_model
from tallyformer.server.models import Models
from tallyformer.server.run import uvicorn_config
from tallyformer.server.settings import ServerSettings

from .conftest import PATIENCE, running, until
from .test_errors import check_envelope
from .test_load import CHAT, SHORT


def test_loaded_models_answer_while_the_next_is_loaded(tally_folder: Path) -> None:
    names = ("pretrain", "distilled", "sft")
    gates = {name: threading.Event() for name in names}
    loaded: list[str] = []

    def load(folder: Path) -> Any:
        name = names[len(loaded)]
        assert gates[name].wait(PATIENCE)
        llm = load_served_model(folder)
        loaded.append(name)
        return llm

    folders = dict.fromkeys(names, tally_folder)
    settings = ServerSettings(models=folders)
    models = Models(folders, load, 4, patience=0.05)
    with running(settings, models=models) as server, server.client() as http:

        def status(name: str) -> str:
            return str(http.get(f"/v1/models/{name}").json()["status"])

        for number, name in enumerate(names):
            assert [status(n) for n in names[number:]] == ["loading"] * (3 - number)
            assert http.get("/health").status_code == 200
            assert check_envelope(http.get("/ready"), 503)["code"] == "not_ready"
            early = http.post(CHAT, json={**SHORT, "model": name})
            assert check_envelope(early, 503)["code"] == "model_not_ready"
            assert int(early.headers["retry-after"]) >= 1
            gates[name].set()
            until(lambda name=name: status(name) == "ready")  # type: ignore[misc]
            assert http.post(CHAT, json={**SHORT, "model": name}).status_code == 200
        until(lambda: http.get("/ready").status_code == 200)
        assert loaded == list(names)


def test_requests_that_come_early_wait_a_short_while_for_their_model(tally_folder: Path) -> None:
    gate = threading.Event()

    def load(folder: Path) -> Any:
        assert gate.wait(PATIENCE)
        return load_served_model(folder)

    folders = {"tiny": tally_folder}
    models = Models(folders, load, 2, patience=PATIENCE)
    with (
        running(ServerSettings(models=folders), models=models) as server,
        server.client() as http,
        ThreadPoolExecutor(4) as pool,
    ):
        early = [pool.submit(http.post, CHAT, json=SHORT) for _ in range(4)]
        refused = next(as_completed(early)).result()
        assert check_envelope(refused, 503)["code"] == "model_not_ready"
        gate.set()
        assert sorted(one.result().status_code for one in early) == [200, 200, 200, 503]


def test_connections_of_pooled_clients_are_kept_longer_than_their_pools_keep_them(
    tally_folder: Path,
) -> None:
    """75 s; a shorter time resets requests that cross the end of a connection."""
    assert uvicorn_config(ServerSettings(models={"tiny": tally_folder})).timeout_keep_alive >= 75
