"""What one key may ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallyformer.errors import UsageError
from tallyformer.server.keys import digest_of
from tallyformer.server.rate_limits import RateLimits
from tallyformer.server.settings import ServerSettings

from .conftest import Running, running, until
from .test_errors import check_envelope
from .test_load import CHAT, ENDLESS, SHORT, asked, model_of


@contextlib.contextmanager
def limited(folder: Path, tmp_path: Path, **limits: Any) -> Iterator[Running]:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} sha256:{digest_of(name)}\n" for name in ("alice", "bob")))
    with running(ServerSettings(models={"tiny": folder}, api_key_file=keys, **limits)) as server:
        server.wait_until_ready()
        yield server


def ask(server: Running, key: str, **changes: Any) -> httpx2.Response:
    with server.client(headers={"authorization": f"Bearer {key}"}) as http:
        return http.post(CHAT, json={**SHORT, **changes})


def test_requests_a_minute_are_counted_for_each_key_and_said(
    tally_folder: Path, tmp_path: Path
) -> None:
    with limited(tally_folder, tmp_path, requests_per_minute=2) as server:
        answers = [ask(server, "alice"), ask(server, "alice")]
        left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
        assert left == ["1", "0"]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
        assert answers[0].headers["x-ratelimit-reset-requests"].endswith("s")
        refused = ask(server, "alice")
        detail = check_envelope(refused, 429)
        assert (detail["type"], detail["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert ask(server, "bob").status_code == 200
        assert ask(server, "bob", n=99).status_code == 400


def test_tokens_a_minute_count_the_prompt_and_the_longest_answer(
    tally_folder: Path, tmp_path: Path
) -> None:
    with limited(tally_folder, tmp_path, tokens_per_minute=100) as server:
        first = ask(server, "alice", stream=True)
        used = 100 - int(first.headers["x-ratelimit-remaining-tokens"])
        prompt = ask(server, "bob").json()["usage"]["prompt_tokens"]
        assert used == prompt + 3
        check_envelope(ask(server, "alice", max_tokens=100), 429)
        assert ask(server, "alice").status_code == 200


def test_requests_at_once_are_bounded_and_their_end_makes_room(
    tally_folder: Path, tmp_path: Path
) -> None:
    with limited(tally_folder, tmp_path, requests_at_once=1) as server:
        with asked(server, ENDLESS, key="alice"):
            until(lambda: model_of(server).llm.running == 1)
            check_envelope(ask(server, "alice"), 429)
            assert ask(server, "bob").status_code == 200
        until(lambda: ask(server, "alice").status_code == 200)
        assert ask(server, "alice").status_code == 200


@pytest.mark.parametrize("storage", ["nothing://", "redis://127.0.0.1:port", "memory"])
def test_a_storage_that_cannot_be_used_is_one_line(storage: str) -> None:
    with pytest.raises(UsageError, match="--rate-limit-storage"):
        RateLimits(requests=1, tokens=None, at_once=None, storage=storage)
