"""Streams that are left and joined again."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallyformer.server.app import load_served_model
from tallyformer.server.models import Models
from tallyformer.server.settings import ServerSettings

from .conftest import KEY, PATIENCE, Running, running, until
from .test_errors import check_envelope
from .test_limits import limited
from .test_load import CHAT, ENDLESS, asked, model_of, nothing_runs

REJOIN = {"stream": True, "stream_options": {"rejoin": True, "include_usage": True}}
BODY: dict[str, Any] = {**ENDLESS, **REJOIN, "max_tokens": 60, "seed": 3}


def blocks(text: str) -> list[str]:
    """The events of a stream, whole ones alone, without comments."""
    return [b for b in text.split("\n\n")[:-1] if b and not b.startswith(":")]


def answer_id(text: str) -> str:
    found = re.search(r'"id":"([\w-]+)"', text)
    assert found
    return found[1]


def part_of(http: httpx2.Client, path: str, events: int, **request: Any) -> str:
    """So many events of a stream, which is then left."""
    got = ""
    with http.stream(request.pop("method", "GET"), path, **request) as answer:
        assert answer.status_code == 200
        for text in answer.iter_text():
            got += text
            if len(blocks(got)) >= events:
                break
    return got


def test_events_are_numbered_only_where_it_was_asked_for(http: httpx2.Client) -> None:
    plain = http.post(CHAT, json={**BODY, "stream_options": None}).text
    assert "id: " not in plain.replace('"id":', "")
    numbered = blocks(http.post(CHAT, json=BODY).text)
    ids = [block.partition("\n")[0] for block in numbered]
    assert ids == [f"id: {number}" for number in range(len(numbered))]
    assert numbered[-1].endswith("data: [DONE]")


def test_its_id_is_known_before_its_first_event(tally_folder: Path) -> None:
    settings = ServerSettings(models={"tiny": tally_folder}, max_waiting=1)
    with running(settings) as server, contextlib.ExitStack() as others:
        server.wait_until_ready()
        for _ in range(model_of(server).llm.slots):
            others.enter_context(asked(server, ENDLESS))
        until(lambda: model_of(server).llm.running == model_of(server).llm.slots)
        with server.client() as http:
            # It waits: there is no event yet, but a header.
            with http.stream("POST", CHAT, json=BODY) as answer:
                path = f"/v1/generations/{answer.headers['x-generation-id']}"
            others.close()
            assert blocks(http.get(path).text)[-1].endswith("data: [DONE]")


@pytest.mark.parametrize("seen", [1, 2, 7, 20])
def test_nothing_is_lost_or_repeated_wherever_it_is_left(http: httpx2.Client, seen: int) -> None:
    first = part_of(http, CHAT, seen, method="POST", json=BODY)
    got = blocks(first)
    path = f"/v1/generations/{answer_id(first)}"
    last = got[-1].partition("\n")[0].removeprefix("id: ")
    rest = http.get(path, headers={"last-event-id": last})
    assert rest.headers["content-type"].startswith("text/event-stream")
    every = [*got, *blocks(rest.text)]
    assert [block.partition("\n")[0] for block in every] == [f"id: {i}" for i in range(len(every))]
    assert every == blocks(http.get(path).text)
    assert every[-1].endswith("data: [DONE]")


def test_it_is_for_the_same_key_alone(tally_folder: Path, tmp_path: Path) -> None:
    with limited(tally_folder, tmp_path) as server:
        mine, other = ({"authorization": f"Bearer {name}"} for name in ("alice", "bob"))
        with server.client() as http:
            text = http.post(CHAT, json=BODY, headers=mine).text
            path = f"/v1/generations/{answer_id(text)}"
            assert http.get(path, headers=mine).text == text
            check_envelope(http.get(path, headers=other), 404)
            check_envelope(http.delete(path, headers=other), 404)
            check_envelope(http.get(path), 401)


@pytest.fixture(scope="module")
def hasty(tally_folder: Path) -> Iterator[Running]:
    """A server that waits for nobody."""
    settings = ServerSettings(models={"tiny": tally_folder}, rejoin_seconds=0.2)
    with running(settings) as server:
        server.wait_until_ready()
        yield server


def test_what_nobody_joins_again_frees_its_place_and_is_forgotten(hasty: Running) -> None:
    with hasty.client() as http:
        first = part_of(http, CHAT, 3, method="POST", json={**ENDLESS, **REJOIN})
    until(lambda: nothing_runs(hasty))
    with hasty.client() as http:
        check_envelope(http.get(f"/v1/generations/{answer_id(first)}"), 404)


def test_it_is_stopped_by_its_id(served: Running) -> None:
    with served.client() as http:
        first = part_of(http, CHAT, 3, method="POST", json={**ENDLESS, **REJOIN})
        path = f"/v1/generations/{answer_id(first)}"
        assert model_of(served).llm.running == 1
        assert http.delete(path).status_code == 204
        until(lambda: nothing_runs(served))
        check_envelope(http.get(path), 404)
        check_envelope(http.delete(path), 404)


def test_a_server_ends_with_a_stream_that_nobody_reads(tally_folder: Path) -> None:
    with running(ServerSettings(models={"tiny": tally_folder})) as server:
        server.wait_until_ready()
        with server.client() as http:
            part_of(http, CHAT, 2, method="POST", json={**ENDLESS, **REJOIN})


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 40, "١"])
def test_an_id_that_is_not_one_is_a_400(http: httpx2.Client, last: str) -> None:
    headers = [(b"last-event-id", last.encode())]
    check_envelope(http.get("/v1/generations/any", headers=headers), 400)


def test_responses_and_completions_are_joined_alike(http: httpx2.Client) -> None:
    shared = {"model": "tiny", "max_tokens": 5, "ignore_eos": True, **REJOIN}
    for path, body in (
        ("/v1/responses", {"input": "Profit?"}),
        ("/v1/completions", {"prompt": "Profit"}),
    ):
        text = http.post(path, json={**shared, **body}).text
        assert http.get(f"/v1/generations/{answer_id(text)}").text == text


def test_the_key_of_the_tests_is_in_no_event(keyed: Running) -> None:
    with keyed.client(headers={"authorization": f"Bearer {KEY}"}) as http:
        assert KEY not in http.post(CHAT, json=BODY).text


def test_who_leaves_before_the_head_has_come_holds_no_slot(tally_folder: Path) -> None:
    gate = threading.Event()

    def load(folder: Path) -> Any:
        assert gate.wait(PATIENCE)
        return load_served_model(folder)

    folders = {"tiny": tally_folder}
    models = Models(folders, load, 2, patience=PATIENCE)
    settings = ServerSettings(models=folders, rejoin_seconds=10 * PATIENCE)
    with running(settings, models=models) as server, server.client() as http:
        with asked(server, {**ENDLESS, **REJOIN}):
            assert http.get("/health").status_code == 200
        assert http.get("/health").status_code == 200
        gate.set()
        until(lambda: 'outcome="cancelled"' in http.get("/metrics").text)
        until(lambda: nothing_runs(server))
