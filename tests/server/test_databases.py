"""Rated answers in a real PostgreSQL (Debian's package postgresql); skipped where it is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tallyformer.server.feedback.store import FeedbackStore
from tallyformer.server.settings import ServerSettings

from .conftest import PATIENCE, running, until
from .test_errors import check_envelope
from .test_feedback import rated
from .test_load import CHAT, SHORT

NOBODY = 65534
"""PostgreSQL does not run as root."""


def program(name: str) -> str:
    """Where a server's program is."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, versions)]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def started(
    *command: object, answers: Callable[[], bool], user: int | None = None
) -> Iterator[Any]:
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user
    ) as server:
        try:
            until(lambda: server.poll() is not None or _true(answers))
            assert server.poll() is None
            yield server
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(PATIENCE)


def _true(answers: Callable[[], bool]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return answers()
    return False


@dataclass(frozen=True)
class Database:
    """An empty database in a folder of its own."""

    folder: str
    user: int | None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tester@/postgres?host={self.folder}"

    def make(self) -> None:
        command = [program("initdb"), "-D", f"{self.folder}/data", "-U", "tester", "-A", "trust"]
        command += ["-E", "UTF8", "--no-sync"]
        subprocess.run(command, user=self.user, check=True, capture_output=True)

    def runs(self) -> contextlib.AbstractContextManager[Any]:
        options = ("-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off")
        return started(
            program("postgres"),
            *("-D", f"{self.folder}/data", *options),
            answers=lambda: "ready" in (Path(self.folder) / "data/postmaster.pid").read_text(),
            user=self.user,
        )


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    pytest.importorskip("psycopg")
    program("postgres")
    folder = tempfile.mkdtemp(prefix="tallyformer-test-")
    user = None if os.geteuid() else NOBODY
    if user is not None:
        os.chown(folder, user, user)
    try:
        database = Database(folder, user)
        database.make()
        yield database
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgresql(database: Database) -> Iterator[str]:
    """Its URL while it runs."""
    with database.runs():
        yield database.url


def test_ratings_are_kept_in_postgresql(
    tally_folder: Path, tmp_path: Path, postgresql: str
) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, feedback=postgresql)
    with running(settings) as server, server.client() as http:
        server.wait_until_ready()
        answer = http.post(CHAT, json={**SHORT, "user": "u1", "n": 2}).json()
        said = {"id": answer["id"], "rating": "down", "corrected": "5 € 🙂", "tags": ["short"]}
        for change in ({}, {"rating": "up"}, {"choice": 1}):
            assert http.post("/v1/feedback", json={**said, **change}).status_code == 200
        store = FeedbackStore(postgresql)
        kept = [(one.choice, one.rating, one.corrected, one.user) for one in store.all()]
        assert kept == [(0, "up", "5 € 🙂", "u1"), (1, "down", "5 € 🙂", "u1")]
        assert [one.messages for one in store.all()] == [SHORT["messages"]] * 2
        store.close()
        for zero in ({"corrected": "a\0b"}, {"tags": ["\0"]}):
            assert http.post("/v1/feedback", json={**said, **zero}).status_code == 200
        check_envelope(http.post("/v1/feedback", json={**said, "id": "\0"}), 404)
        assert http.delete("/v1/feedback", params={"user": "\0"}).json()["deleted"] == 0
        assert http.delete("/v1/feedback", params={"user": "u1"}).json()["deleted"] == 2


def test_what_is_stored_is_the_same_in_both_databases(tmp_path: Path, postgresql: str) -> None:
    stores = [FeedbackStore(url) for url in (f"sqlite:///{tmp_path / 'some.db'}", postgresql)]
    for store in stores:
        store.save(rated(1, rating="up", rated_at=5, answer="zero: \0", user="\0"))
        store.save(rated(2, corrected="Better.", tags=["a", "b"], rated_at=6))
    assert list(stores[0].all()) == list(stores[1].all())
    for store in stores:
        assert store.delete(owner="alice", user="\0") == 1
        assert store.delete(owner="alice", answer_id="a2") == 1
        store.close()


def test_two_servers_that_rate_one_answer_at_the_same_time_both_succeed(postgresql: str) -> None:
    """Whoever is last stays; neither sees the other one's row before it is committed."""
    stores = [FeedbackStore(postgresql) for _ in range(2)]
    together = threading.Barrier(2)

    def rate(store: FeedbackStore, tag: str) -> None:
        try:
            for number in range(50):
                together.wait(PATIENCE)
                store.save(rated(number // 2, tags=[tag]))
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(rate, *pair) for pair in zip(stores, "ab", strict=True)]:
            done.result(PATIENCE)
    kept = list(stores[0].all())
    assert len({one.answer_id for one in kept}) == len(kept) == 25
    assert all(one.tags in (["a"], ["b"]) for one in kept)
    for one in kept:
        assert stores[1].delete(owner="alice", answer_id=one.answer_id) == 1
    for store in stores:
        store.close()


def test_a_database_that_is_away_is_a_503_and_is_used_again_when_it_is_back(
    tally_folder: Path, database: Database
) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, feedback=database.url)
    with contextlib.ExitStack() as stack:
        with database.runs():
            server = stack.enter_context(running(settings))
            server.wait_until_ready()
            http = stack.enter_context(server.client())
            answer = http.post(CHAT, json={**SHORT, "temperature": 0, "max_tokens": 20}).json()
            assert answer["choices"][0]["message"]["content"]
            said = {"id": answer["id"], "rating": "up"}
            assert http.post("/v1/feedback", json=said).status_code == 200
        away = http.post("/v1/feedback", json=said)
        assert check_envelope(away, 503)["code"] == "database"
        assert int(away.headers["retry-after"]) >= 1
        assert http.post(CHAT, json=SHORT).status_code == 200
        with database.runs():
            assert http.post("/v1/feedback", json=said).status_code == 200
            assert http.delete(f"/v1/feedback/{said['id']}").json()["deleted"] == 1
