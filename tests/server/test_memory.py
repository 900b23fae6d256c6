"""Answers that are made faster than they are read, or never end: memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.server.memory import AnswerMemory
from tallyformer.server.settings import ServerSettings

from .conftest import Running, running, until
from .test_errors import check_envelope
from .test_load import CHAT, ENDLESS, asked, model_of, nothing_runs
from .test_rejoining import REJOIN, answer_id, blocks, part_of

MOST = 1 << 18


@pytest.fixture(scope="module")
def small(tally_folder: Path) -> Iterator[Running]:
    with running(ServerSettings(models={"tiny": tally_folder}, max_answer_bytes=MOST)) as server:
        server.wait_until_ready()
        yield server


def test_a_stream_that_nobody_reads_ends(small: Running) -> None:
    large = {"logprobs": True, "top_logprobs": 20, "stream": True, "n": 4}
    with asked(small, {**ENDLESS, **large}) as connection:
        assert connection.recv(1)  # it has begun
        until(lambda: nothing_runs(small))


def test_an_answer_that_is_made_holds_no_place_until_it_is_read(served: Running) -> None:
    with asked(served, {**ENDLESS, "stream": True, "n": 16, "max_tokens": 2000}) as connection:
        until(lambda: model_of(served).llm.running == 16)
        until(lambda: nothing_runs(served))
        text = b""
        while b"data: [DONE]" not in text[-100:]:
            text += connection.recv(1 << 20)
    assert text.count(b'"finish_reason":"length"') == 16


def test_a_whole_answer_that_is_endless_ends_with_a_503(small: Running) -> None:
    with small.client() as http:
        answer = http.post(CHAT, json=ENDLESS)
    assert check_envelope(answer, 503)["code"] == "out_of_memory"


def test_a_stream_that_is_read_is_as_long_as_it_likes(small: Running) -> None:
    with small.client() as http:
        text = http.post(CHAT, json={**ENDLESS, "stream": True, "max_tokens": 6000}).text
    assert '"finish_reason":"length"' in text
    assert text.endswith("data: [DONE]\n\n")


def test_only_the_largest_answer_ends(small: Running) -> None:
    largest = asked(small, {**ENDLESS, "stream": True, "n": 8})
    with largest as connection, small.client() as http:
        assert connection.recv(1)  # it has begun
        while not nothing_runs(small):
            answer = http.post(CHAT, json={**ENDLESS, "max_tokens": 20})
            assert answer.json()["usage"]["completion_tokens"] == 20


def test_a_stream_that_can_be_joined_again_is_bounded_even_if_it_is_read(small: Running) -> None:
    with small.client() as http:
        events = blocks(http.post(CHAT, json={**ENDLESS, **REJOIN}).text)
        assert '"code":"out_of_memory"' in events[-1]
        assert sum(map(len, events)) < 2 * MOST // 4
        kept = blocks(http.post(CHAT, json={**ENDLESS, **REJOIN, "max_tokens": 20}).text)
        assert kept[-1].endswith("data: [DONE]")
        path = f"/v1/generations/{answer_id(kept[0])}"
        assert blocks(http.get(path).text) == kept


def test_one_that_is_finished_is_forgotten_before_one_that_runs_ends(small: Running) -> None:
    with small.client() as http:
        for _ in range(8):
            body = {**ENDLESS, **REJOIN, "max_tokens": 100}
            events = blocks(part_of(http, CHAT, 103, method="POST", json=body))
            assert events[-1].endswith("data: [DONE]"), events[-1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-50, 100)), max_size=60))
def test_all_that_is_kept_is_within_the_bound(changes: list[tuple[int, int]]) -> None:
    memory, gone = AnswerMemory(200), []
    kept = [memory.begin(lambda index=index: gone.append(index)) for index in range(5)]
    for index, size in changes:
        memory.grow(kept[index], max(size, -kept[index].size))
        left = [one.size for number, one in enumerate(kept) if number not in gone]
        assert sum(left) <= 200
    assert len(set(gone)) == len(gone)
    for one in kept:
        memory.end(one)
    assert memory.begin(lambda: None).size == 0
