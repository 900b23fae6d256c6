"""Several APIs with Redis and PostgreSQL: it does not matter which one a request comes to."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import httpx2
import pytest

from .conftest import ASKED, LONG, PATIENCE, Deployment, deployed, needs_engine

pytestmark = needs_engine
FILES = ("compose.yaml", "compose.scale.yaml")
CHAT = "/v1/chat/completions"
DIRECT = """
import json, sys, urllib.request as r
method, path, body = json.loads(sys.stdin.read())
asked = r.Request("http://127.0.0.1:8000" + path, body and json.dumps(body).encode(),
                  {"content-type": "application/json"}, method=method)
try:
    with r.urlopen(asked) as answer:
        print(json.dumps([answer.status, dict(answer.headers), answer.read().decode()]))
except r.HTTPError as error:
    print(json.dumps([error.code, dict(error.headers), error.read().decode()]))
"""


@pytest.fixture(scope="module")
def scaled() -> Iterator[Deployment]:
    told = {"REPLICAS": "3", "POSTGRES_PASSWORD": "of-a-test", "REQUESTS_PER_MINUTE": "300"}
    with deployed(*FILES, **told) as project:
        yield project


def direct(container: str, method: str, path: str, body: object = None) -> tuple[int, dict, str]:
    """What one replica answers, whichever nginx would choose."""
    done = subprocess.run(
        ["docker", "exec", "--interactive", container, "python", "-c", DIRECT],
        input=json.dumps([method, path, body]),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    status, headers, text = json.loads(done.stdout)
    return status, {k.lower(): v for k, v in headers.items()}, text


def test_every_replica_answers_and_all_count_together(scaled: Deployment) -> None:
    replicas = scaled.containers("api")
    assert len(replicas) == 3
    left = []
    for replica in replicas:
        status, headers, text = direct(replica, "POST", CHAT, ASKED)
        assert status == 200 and "prices" in text
        left.append(int(headers["x-ratelimit-remaining-requests"]))
    assert left == [left[0], left[0] - 1, left[0] - 2]
    assert scaled.ask().status_code == 200


def test_an_answer_of_one_replica_is_rated_at_another_and_kept(scaled: Deployment) -> None:
    one, other, third = scaled.containers("api")
    answer_id = json.loads(direct(one, "POST", CHAT, ASKED)[2])["id"]
    body = {"id": answer_id, "rating": "up"}
    assert direct(other, "POST", "/v1/feedback", body)[0] == 200
    words = ("psql", "--username", "tallyformer", "--tuples-only", "--command")
    kept = "SELECT answer_id FROM rated_answers"
    assert answer_id in scaled.compose("exec", "--no-TTY", "postgres", *words, kept)
    assert json.loads(direct(third, "DELETE", f"/v1/feedback/{answer_id}")[2])["deleted"] == 1


@contextlib.contextmanager
def started(project: Deployment, most_tokens: int) -> Iterator[tuple[str, Iterator[str]]]:
    """The id of an answer that has begun, and its lines; left with the block."""
    body = {**LONG, "stream_options": {"rejoin": True}, "max_tokens": most_tokens}
    with httpx2.stream("POST", project.page + CHAT, json=body, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        yield json.loads(first.removeprefix("data: "))["id"], lines


def test_a_stream_is_joined_at_any_replica(scaled: Deployment) -> None:
    with started(scaled, 2000) as (answer_id, _):
        path = f"/v1/generations/{answer_id}"
    streams = [direct(replica, "GET", path) for replica in scaled.containers("api")]
    assert {status for status, _, _ in streams} == {200}
    assert len({text for _, _, text in streams}) == 1
    assert streams[0][2].endswith("data: [DONE]\n\n")


def test_a_stream_is_stopped_at_any_replica(scaled: Deployment) -> None:
    with started(scaled, 200_000) as (answer_id, _):
        path = f"/v1/generations/{answer_id}"
        assert httpx2.delete(scaled.page + path, timeout=PATIENCE).status_code == 204
    for replica in scaled.containers("api"):
        assert direct(replica, "GET", path)[0] == 404


def test_where_a_replica_is_killed_the_others_answer(scaled: Deployment) -> None:
    replicas = scaled.containers("api")
    with started(scaled, 200_000) as (answer_id, lines):
        runs = 'tallyformer_running_answers{model="sft"} 1.0'
        [victim] = [r for r in replicas if runs in direct(r, "GET", "/metrics")[2]]
        subprocess.run(["docker", "kill", victim], check=True, capture_output=True)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(lines)
    other = next(replica for replica in replicas if replica != victim)
    status, _, text = direct(other, "GET", f"/v1/generations/{answer_id}")
    assert status == 200 and '"code":"lost"' in text.split("data: ")[-1]
    for _ in range(6):
        assert scaled.ask().status_code == 200
