"""Rated answers: kept, deleted, exported; nothing else is."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.cli.feedback import feedback
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource
from tallyformer.data.pairs import read_pairs
from tallyformer.data.sources import pair_source
from tallyformer.errors import UsageError
from tallyformer.server.feedback.exchanges import MOST_CHARACTERS, Exchange, Exchanges
from tallyformer.server.feedback.export import export_feedback
from tallyformer.server.feedback.store import FeedbackStore, RatedAnswer
from tallyformer.server.keys import digest_of
from tallyformer.server.settings import ServerSettings
from tallyformer.stages import sft

from ..small_run import TRAIN
from ..tiny_run import tiny_recipe
from .conftest import Running, running, until
from .test_errors import check_envelope
from .test_load import CHAT, SHORT
from .test_process import process

QUESTION = {"role": "user", "content": "Profit?"}
ALICE, BOB = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback") / "feedback.db"


@pytest.fixture(scope="module")
def rating(
    tally_folder: Path, database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("".join(f"{name} sha256:{digest_of(name)}\n" for name in ("alice", "bob")))
    settings = ServerSettings(
        models={"tiny": tally_folder}, api_key_file=keys, feedback=f"sqlite:///{database}"
    )
    with running(settings) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def http(rating: Running) -> Iterator[httpx2.Client]:  # type: ignore[override]
    with rating.client(headers=ALICE) as client:
        yield client


def rows(database: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(
            "select answer_id, owner, user, answer, rating, corrected, tags from rated_answers"
        ).fetchall()


def test_a_rating_is_kept_with_what_it_is_about(http: httpx2.Client, database: Path) -> None:
    answer = http.post(CHAT, json={**SHORT, "user": "u1"}).json()
    assert rows(database) == []
    said = {"id": answer["id"], "rating": "down", "corrected": "Gain.", "tags": ["short"]}
    kept = http.post("/v1/feedback", json=said)
    assert kept.status_code == 200, kept.text
    assert kept.json() == {"object": "feedback", "choice": 0, **said}
    text = answer["choices"][0]["message"]["content"]
    expected = (answer["id"], "alice", "u1", text, "down", "Gain.", '["short"]')
    assert rows(database) == [expected]
    again = http.post("/v1/feedback", json={"id": answer["id"], "rating": "up"})
    assert again.status_code == 200
    assert rows(database) == [(*expected[:4], "up", None, "[]")]
    assert http.delete(f"/v1/feedback/{answer['id']}").json()["deleted"] == 1
    assert rows(database) == []
    check_envelope(http.post("/v1/feedback", json=said), 404)


def test_streams_and_choices_are_rated_too(http: httpx2.Client, database: Path) -> None:
    chunks = http.post(CHAT, json={**SHORT, "stream": True, "n": 2, "user": "u2"}).text
    first = json.loads(chunks.partition("\n\n")[0].removeprefix("data: "))
    for choice in (0, 1):
        said = {"id": first["id"], "choice": choice, "rating": "up"}
        assert http.post("/v1/feedback", json=said).status_code == 200
    check_envelope(http.post("/v1/feedback", json={**said, "choice": 2}), 404)
    assert len(rows(database)) == 2
    assert http.delete("/v1/feedback", params={"user": "u2"}).json()["deleted"] == 2
    assert rows(database) == []


def test_what_was_deleted_is_in_no_file(http: httpx2.Client, database: Path) -> None:
    secret = "Nobody else may know."
    for number in range(3):
        asked = [{"role": "user", "content": f"{secret} {number}"}]
        answer = http.post(CHAT, json={**SHORT, "messages": asked, "user": "u3"}).json()
        said = {"id": answer["id"], "rating": "down", "corrected": secret}
        assert http.post("/v1/feedback", json=said).is_success

    def found() -> int:
        files = database.parent.glob(database.name + "*")
        return sum(file.read_bytes().count(secret.encode()) for file in files)

    assert found()
    assert http.delete("/v1/feedback", params={"user": "u3"}).json()["deleted"] == 3
    assert not found()


def test_another_key_neither_rates_nor_deletes(http: httpx2.Client, database: Path) -> None:
    answer = http.post(CHAT, json=SHORT).json()
    said = {"id": answer["id"], "rating": "up"}
    check_envelope(http.post("/v1/feedback", json=said, headers=BOB), 404)
    http.post("/v1/feedback", json=said)
    assert http.delete(f"/v1/feedback/{answer['id']}", headers=BOB).json()["deleted"] == 0
    assert len(rows(database)) == 1
    http.delete(f"/v1/feedback/{answer['id']}")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"id": "x"},
        {"id": "x", "rating": "good"},
        {"id": "x", "rating": "up", "tags": ["a"] * 33},
        {"id": "x", "corrected": ""},
        {"id": 5, "rating": "up"},
    ],
)
def test_what_is_not_a_rating_is_a_400(http: httpx2.Client, said: dict[str, Any]) -> None:
    check_envelope(http.post("/v1/feedback", json=said), 400)


def test_it_is_off_until_a_database_is_given(served: Running) -> None:
    with served.client() as plain:
        check_envelope(plain.post("/v1/feedback", json={"id": "x", "rating": "up"}), 404)


def test_a_killed_server_has_lost_no_acknowledged_rating(
    tally_folder: Path, tmp_path: Path
) -> None:
    database = tmp_path / "kept.db"
    arguments = ("--model", f"tiny={tally_folder}", "--feedback", f"sqlite:///{database}")
    acknowledged = []
    with process(*arguments) as (server, url), httpx2.Client(base_url=url, timeout=120) as plain:
        until(lambda: plain.get("/ready").status_code == 200)
        for _ in range(5):
            answer_id = plain.post(CHAT, json=SHORT).json()["id"]
            assert plain.post("/v1/feedback", json={"id": answer_id, "rating": "up"}).is_success
            acknowledged.append(answer_id)
        server.kill()
        server.wait()
    store = FeedbackStore(f"sqlite:///{database}")
    assert {rated.answer_id for rated in store.all()} == set(acknowledged)
    store.close()


def rated(number: int, **changes: Any) -> RatedAnswer:
    values: dict[str, Any] = {
        "answer_id": f"a{number}",
        "choice": 0,
        "owner": "alice",
        "user": None,
        "model": "tiny",
        "messages": [{"role": "system", "content": "Brief."}, QUESTION],
        "answer": f"Answer {number}.",
        "rating": None,
        "corrected": None,
        "tags": [],
    }
    return RatedAnswer(**{**values, **changes})


def test_what_is_exported_is_what_a_recipe_reads(tmp_path: Path) -> None:
    store = FeedbackStore(f"sqlite:///{tmp_path / 'some.db'}")
    store.save(rated(1, rating="up"))
    store.save(rated(2, rating="down"))
    store.save(rated(3, rating="down", corrected="Better 3."))
    written = export_feedback(store.all(), tmp_path)
    store.close()
    assert written == {"pairs.jsonl": 2, "preferences.jsonl": 1}
    lines = (tmp_path / "preferences.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "messages": [{"role": "system", "content": "Brief."}, QUESTION],
        "chosen": "Better 3.",
        "rejected": "Answer 3.",
    }
    section = PairSource(name="s", paths=("pairs.jsonl",))
    source = pair_source(section, data_root=str(tmp_path), seed=0)
    pairs = list(read_pairs(source, section, Counter()))
    assert [(pair.prompt, pair.response) for pair in pairs] == [
        ("Profit?", "Answer 1."),
        ("Profit?", "Better 3."),
    ]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_next_model_learns_what_was_rated(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    database, out = f"sqlite:///{tmp_path / 'feedback.db'}", tmp_path / "rated"
    settings = ServerSettings(
        models={"tiny": tiny[1].stage("pretrain") / "best"}, feedback=database
    )
    with running(settings) as server, server.client() as http:
        server.wait_until_ready()
        for number in range(20):
            question = {"role": "user", "content": f"What is {number}?"}
            asked = {**SHORT, "messages": [question], "max_tokens": 12, "min_tokens": 12}
            said = {"rating": "up"} if number < 5 else {"corrected": f"A number below {number}1."}
            answer = http.post(CHAT, json=asked).json()
            assert http.post("/v1/feedback", json={"id": answer["id"], **said}).is_success
    done = CliRunner().invoke(feedback, ["export", "--database", database, "--out", str(out)])
    assert done.exit_code == 0, done.output
    for name, rows in (("pairs", 20), ("preferences", 15)):
        section = {**TRAIN, "steps": 30, "sources": [{"name": name, "paths": [f"{name}.jsonl"]}]}
        recipe = tiny_recipe(tmp_path, data_root=str(out), sft={**section, "lora": {"r": 4}})
        run = RunFolder(Path(shutil.copytree(tiny[1].path, tmp_path / name)))
        metrics = sft.run(recipe, run).metrics
        counts = metrics["pairs"][name]
        assert (counts["rows"], counts["dropped"]) == (rows, {})
        assert metrics["response_perplexity"] < metrics["response_perplexity_before"]


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/no/such/folder.db", "nothing://x", "postgresql://x/y", ""):
        with pytest.raises(UsageError, match="--feedback") as caught:
            FeedbackStore(url)
        assert "\n" not in str(caught.value) and "cannot be opened (" in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_would_not_outlive_the_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="would be lost with the server"):
        FeedbackStore(url)


def test_a_server_that_has_ended_leaves_the_whole_database_in_its_file(
    tally_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "feedback.db"
    settings = ServerSettings(models={"tiny": tally_folder}, feedback=f"sqlite:///{file}")
    with running(settings) as server, server.client() as http:
        server.wait_until_ready()
        answer = http.post(CHAT, json=SHORT).json()
        assert http.post("/v1/feedback", json={"id": answer["id"], "rating": "up"}).is_success
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_database_that_another_process_has_locked_is_a_503(
    tally_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("tallyformer.server.feedback.store.LOCK_SECONDS", 0.1)
    file = tmp_path / "feedback.db"
    settings = ServerSettings(models={"tiny": tally_folder}, feedback=f"sqlite:///{file}")
    with running(settings) as server, server.client() as http:
        server.wait_until_ready()
        said = {"id": http.post(CHAT, json=SHORT).json()["id"], "rating": "up"}
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert check_envelope(http.post("/v1/feedback", json=said), 503)["code"] == "database"
        [told] = [record for record in caplog.records if record.message == "database failed"]
        assert vars(told)["fields"] == {"reason": "database is locked"}
        assert http.post("/v1/feedback", json=said).status_code == 200


def test_memory_of_answers_is_bounded() -> None:
    exchanges = Exchanges()
    long = "x" * (MOST_CHARACTERS // 4)
    for number in range(8):
        exchange = Exchange(owner="a", user=None, model="m", messages=[], answers=[long])
        exchanges.remember(str(number), exchange)
    kept = [number for number in range(8) if exchanges.get(str(number), "a")]
    assert kept == [4, 5, 6, 7]
