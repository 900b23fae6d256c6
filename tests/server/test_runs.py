"""Training runs over a real socket: who may see them, and what no name and no text in them does."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from starlette.requests import Request
from starlette.types import Message, Send

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import UsageError
from tallyformer.server.api_error import ApiError
from tallyformer.server.app import create_app
from tallyformer.server.keys import digest_of
from tallyformer.server.seals import SECONDS, Seals
from tallyformer.server.settings import ServerSettings, server_settings
from tallyformer.server.turns import AT_ONCE, MOST_WAITING, Turns

from .conftest import KEY, PATIENCE, Running, as_it_is, running

EVIL = '<img src=x onerror="alert(1)">'
HOST = (b"host", b"localhost")


@pytest.fixture(scope="module")
def folder(tiny: tuple[Recipe, RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    around = tmp_path_factory.mktemp("served")
    shutil.copytree(tiny[1].path, around / "runs" / "tiny")
    shutil.copytree(tiny[1].path, around / "runs" / EVIL)
    (around / "secret.html").write_text("kept outside")
    return around / "runs"


@pytest.fixture(scope="module")
def shown(folder: Path) -> Iterator[Running]:
    """A server of runs alone."""
    with running(ServerSettings(runs=folder)) as server:
        yield server


@pytest.fixture
def runs(shown: Running) -> Iterator[httpx2.Client]:
    with shown.client() as client:
        yield client


def test_runs_are_shown_without_a_model(runs: httpx2.Client) -> None:
    assert runs.get("/ready").status_code == 200
    assert runs.get("/v1/models").json() == {"object": "list", "data": [], "runs": True}
    for path in ("/runs", "/runs/tiny"):
        assert runs.get(path).headers["content-type"].startswith("text/html")
    listed = runs.get("/v1/runs").json()
    assert {card["id"] for card in listed["data"]} == {"tiny", EVIL} and listed["left_out"] == 0
    run = runs.get("/v1/runs/tiny").json()
    assert run["curves"] == ["pretrain"] and run["samples"]["data"]
    assert [stage["stage"] for stage in run["stages"]][:3] == ["tokenizer", "prepare", "pretrain"]


def test_without_a_model_a_question_is_a_404_that_says_so(runs: httpx2.Client) -> None:
    for answer in (
        runs.get("/welcome"),
        runs.post("/v1/chat/completions", json={"model": "a", "messages": [{"content": "b"}]}),
        runs.post("/tokenize", json={"prompt": "a"}),
    ):
        assert answer.status_code in (400, 404) and answer.json()["error"]["message"]


def test_a_server_without_a_folder_shows_no_runs(http: httpx2.Client) -> None:
    assert http.get("/v1/models").json()["runs"] is False
    assert http.get("/v1/runs").status_code == 404


def test_a_curve_comes_in_parts(runs: httpx2.Client) -> None:
    path = "/v1/runs/tiny/curves/pretrain"
    whole = runs.get(path).json()
    assert whole["fresh"] and whole["parts"][0]["steps"] == [1, 2, 3, 4, 5, 6]
    rest = runs.get(path, params={"cursor": whole["cursor"]}).json()
    assert not rest["fresh"] and rest["parts"][0]["start"] == 6 and not rest["parts"][0]["steps"]


def test_what_was_written_at_a_validation_is_told_by_its_step(runs: httpx2.Client) -> None:
    path = "/v1/runs/tiny/samples/pretrain"
    last = runs.get(path).json()
    assert last["steps"] == [2, 4, 6] and last["step"] == 6
    assert len(last["samples"]) == 3 and last["samples"][0]["question"]
    assert runs.get(path, params={"step": 4}).json()["step"] == 4
    assert runs.get(path, params={"step": -1}).status_code == 400
    assert runs.get("/v1/runs/tiny/samples/evaluate").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v1/runs/..",
        "/v1/runs/%2e%2e",
        "/v1/runs/..%2fsecret.html",
        "/v1/runs/%00",
        "/v1/runs/tiny%2f..",
        "/v1/runs/nothing",
        "/v1/runs/tiny/curves/..%2f..%2fx",
        "/v1/runs/tiny/curves/%2e%2e",
        "/v1/runs/tiny/curves/evaluate",
        "/v1/runs/tiny/../../secret.html",
        "/report/tiny/evaluate/report.html",
        "/report/tiny/../../secret.html?seal=1.a",
        "/report/%2e%2e/secret.html?seal=99999999999999999.a",
        "/report/tiny/%ff?seal=%ff",
    ],
)
def test_no_path_leads_to_another_file(shown: Running, path: str) -> None:
    status, body = as_it_is(shown, path)
    assert status in (400, 404), path
    assert b"kept outside" not in body and json.loads(body)["error"]["message"]


def _address(runs: httpx2.Client, run: str = "tiny") -> str:
    (report,) = runs.get(f"/v1/runs/{quote(run, safe='')}").json()["reports"]
    return str(report["address"])


def test_a_report_opens_by_its_address_in_a_sandbox(runs: httpx2.Client) -> None:
    for run in ("tiny", EVIL):
        answer = runs.get(_address(runs, run))
        assert answer.status_code == 200 and answer.text.startswith("<!doctype html>")
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"sandbox", "default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
        assert not any("script" in rule or "allow-" in rule for rule in policy)


def test_an_address_opens_nothing_else(runs: httpx2.Client) -> None:
    address = _address(runs)
    _, _, seal = address.partition("=")
    for other in (
        f"/report/{quote(EVIL, safe='')}/evaluate/report.html?seal={seal}",
        f"/report/tiny/report.html?seal={seal}",
        address[:-1] + ("0" if address[-1] != "0" else "1"),
        address.replace("seal=", "seal=9"),
    ):
        assert runs.get(other).status_code == 404, other


def test_a_seal_ends() -> None:
    now = 1000.0
    seals = Seals(lambda: now)
    seal = seals.seal("run", "report")
    now += SECONDS
    assert seals.opens(seal, "run", "report")
    assert not seals.opens(seal, "run", "other") and not Seals(lambda: now).opens(seal, "run")
    now += SECONDS
    assert not seals.opens(seal, "run", "report")


def test_runs_need_the_key_and_a_sealed_report_does_not(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice sha256:{digest_of(KEY)}\n")
    with running(ServerSettings(runs=folder, api_key_file=keys)) as server, server.client() as http:
        for path in ("/v1/runs", "/v1/runs/tiny", "/v1/runs/tiny/curves/pretrain"):
            assert http.get(path).status_code == 401
            assert http.get(path, headers={"x-api-key": KEY}).status_code == 200
        run = http.get("/v1/runs/tiny", headers={"x-api-key": KEY}).json()
        assert http.get(run["reports"][0]["address"]).status_code == 200
        assert http.get("/report/tiny/evaluate/report.html").status_code == 404


def test_foreign_hosts_and_pages_are_refused(runs: httpx2.Client) -> None:
    for headers in (
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ):
        assert runs.get("/v1/runs", headers=headers).status_code == 403
        assert runs.get(_address(runs), headers=headers).status_code == 403


@pytest.mark.parametrize("name", ["recipe.yaml", "pretrain/manifest.json", "evaluate/results.json"])
def test_no_damage_is_a_500(
    folder: Path,
    tmp_path: Path,
    shapes_of_damage: dict[str, Callable[[Path], None]],
    name: str,
) -> None:
    for number, damage in enumerate(shapes_of_damage.values()):
        shutil.copytree(folder / "tiny", tmp_path / "runs" / f"run-{number}")
        damage(tmp_path / "runs" / f"run-{number}" / name)
    with running(ServerSettings(runs=tmp_path / "runs")) as server, server.client() as http:
        cards = http.get("/v1/runs").json()["data"]
        assert len(cards) == len(shapes_of_damage)
        for card in cards:
            assert http.get(f"/v1/runs/{card['id']}").status_code == 200
            assert http.get(f"/v1/runs/{card['id']}/curves/pretrain").status_code == 200


def test_texts_of_runs_that_json_cannot_hold_are_sent_all_the_same(
    folder: Path, tmp_path: Path
) -> None:
    from tallyformer.artifacts.json_files import write_checked_json

    run = tmp_path / "runs" / "odd"
    shutil.copytree(folder / "tiny", run)
    (run / "recipe.yaml").write_text('name: "\\ud800"\ndescription: "a\\0b"\n')
    answer = {"question": "\ud800", "answer": 3, "expected": "x" * 10_000}
    write_checked_json(
        run / "evaluate" / "results.json",
        {"format": 1, "samples": {"model": [], "answers": [answer, None, 7]}},
    )
    with running(ServerSettings(runs=tmp_path / "runs")) as server:
        seen = httpx2.get(server.url + "/v1/runs/odd", timeout=PATIENCE)
    assert seen.status_code == 200
    (sample,) = seen.json()["samples"]["data"]
    assert sample["question"] == "?" and sample["answer"] == ""
    assert len(sample["expected"]) < 5000


def test_the_folder_of_one_run_is_refused_with_the_one_to_give(folder: Path) -> None:
    for one in (folder / "tiny", folder / "tiny" / "pretrain"):
        with pytest.raises(UsageError, match=f"--runs: .*Give the folder around it: {one.parent}"):
            server_settings({"runs": one})


def test_a_keys_readers_take_turns_and_hold_up_no_other_key() -> None:
    running_readers, most, release = 0, 0, asyncio.Event()

    async def read(owner: str, turns: Turns) -> str:
        nonlocal running_readers, most
        scope = {"type": "http", "state": {"owner": owner}}
        async for _ in turns.take(Request(scope)):
            running_readers += 1
            most = max(most, running_readers)
            await release.wait()
            running_readers -= 1
        return owner

    async def all_of_them() -> None:
        turns = Turns()
        asked = [asyncio.create_task(read("alice", turns)) for _ in range(AT_ONCE + MOST_WAITING)]
        await asyncio.sleep(0)
        other = asyncio.create_task(read("bob", turns))
        while running_readers < AT_ONCE + 1:
            await asyncio.sleep(0)
        assert most == AT_ONCE + 1
        with pytest.raises(ApiError) as refused:
            await read("alice", turns)
        assert refused.value.status == 429 and refused.value.headers["Retry-After"] == "1"
        gone = asked.pop()
        gone.cancel()
        release.set()
        await asyncio.gather(*asked, other)
        assert gone.cancelled() and most <= AT_ONCE + 1
        assert await read("alice", turns) == "alice"

    asyncio.run(all_of_them())


def test_every_route_of_runs_takes_turns(shown: Running) -> None:
    routes = [r for r in shown.app.router.routes if r.path.startswith("/v1/runs")]
    calls = [[d.call for d in route.dependant.dependencies] for route in routes]
    assert len(routes) == 4
    assert all(any(getattr(c, "__func__", None) is Turns.take for c in found) for found in calls)


def test_who_does_not_read_an_answer_takes_no_turn(folder: Path) -> None:
    app = create_app(ServerSettings(runs=folder))

    async def asked(send: Send) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "GET", "path": "/v1/runs", "headers": [HOST]}
        await app({**scope, "query_string": b"", "client": None, "server": None}, receive, send)

    async def all_of_them() -> list[int]:
        slow, statuses = [], []

        async def unread(message: Message) -> None:
            slow.append(message)
            await asyncio.Event().wait()

        async def read(message: Message) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        tasks = [asyncio.create_task(asked(unread)) for _ in range(AT_ONCE)]
        while len(slow) < AT_ONCE:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            await asked(read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return statuses

    assert asyncio.run(all_of_them()) == [200]
