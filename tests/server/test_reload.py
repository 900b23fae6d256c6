"""Models that are replaced while they answer."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pexpect
import pytest
import torch

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.server.keys import digest_of
from tallyformer.server.settings import ServerSettings

from ..cli.conftest import command
from .conftest import PATIENCE, Running, running, until
from .test_chat import ASK
from .test_load import CHAT, ENDLESS
from .test_process import process


@pytest.fixture
def other_folder(tally_folder: Path, tmp_path: Path) -> Path:
    """The same model with other weights."""
    folder = tmp_path / "other"
    shutil.copytree(tally_folder, folder)
    torch.manual_seed(1)
    config = TallyFormerConfig.from_pretrained(tally_folder)
    TallyFormerForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def link(tally_folder: Path, tmp_path: Path) -> Path:
    """What a server is given: a link to the model in use."""
    link = tmp_path / "model"
    link.symlink_to(tally_folder)
    return link


def switch(link: Path, folder: Path) -> None:
    new = link.with_name("new")
    new.symlink_to(folder)
    new.replace(link)


def text_by(folder: Path) -> str:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    return LLM.from_pretrained(folder, device="cpu").chat(ASK["messages"], params).text


def ask(url: str) -> dict[str, Any]:
    answer = httpx2.post(url + CHAT, json=ASK, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def content(said: dict[str, Any]) -> str:
    return str(said["choices"][0]["message"]["content"])


def test_a_replaced_model_ends_its_streams_and_the_new_one_answers_what_comes(
    tally_folder: Path, other_folder: Path, link: Path
) -> None:
    before, after = text_by(tally_folder), text_by(other_folder)
    assert before != after
    body = {**ASK, "max_tokens": 3000, "stream": True}
    lines: list[str] = []
    begun, ended = threading.Event(), threading.Event()

    def read(url: str) -> None:
        with httpx2.stream("POST", url + CHAT, json=body, timeout=PATIENCE) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                begun.set()
        ended.set()

    with process("--model", f"tiny={link}", start_new_session=True) as (server, url):
        until(lambda: httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 200)
        old = ask(url)
        reader = threading.Thread(target=read, args=[url], daemon=True)
        reader.start()
        assert begun.wait(PATIENCE)
        switch(link, other_folder)
        server.send_signal(signal.SIGHUP)
        until(lambda: content(ask(url)) == after)
        assert content(old) == before
        assert ask(url)["system_fingerprint"] != old["system_fingerprint"]
        reader.join(PATIENCE)
        assert server.poll() is None
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(c["delta"].get("content", "") for e in events for c in e["choices"])
    params = SamplingParams(temperature=0, max_tokens=3000, ignore_eos=True)
    whole = LLM.from_pretrained(tally_folder, device="cpu").chat(ASK["messages"], params).text
    assert ended.is_set()
    assert (text, lines[-2]) == (whole, "data: [DONE]")
    assert len({event["system_fingerprint"] for event in events}) == 1


def test_a_key_is_given_and_taken_away_without_a_cut(tally_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"

    def line(name: str) -> str:
        return f"{name} sha256:{digest_of(name)}\r\n"

    keys.write_bytes(line("alice").encode())
    words = ("--model", f"tiny={tally_folder}", "--api-key-file", keys)
    with process(*words, start_new_session=True) as (server, url):

        def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return httpx2.get(url + "/v1/models", headers=headers, timeout=PATIENCE).status_code

        until(lambda: httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 200)
        alice = {"authorization": "Bearer alice"}
        body = {**ASK, "max_tokens": 2000, "stream": True}
        with httpx2.stream(
            "POST", url + CHAT, headers=alice, json=body, timeout=PATIENCE
        ) as answer:
            lines = answer.iter_lines()
            assert next(lines)
            keys.write_bytes(line("bob").encode())
            server.send_signal(signal.SIGHUP)
            until(lambda: (status("alice"), status("bob")) == (401, 200))
            assert list(lines)[-2] == "data: [DONE]"
        keys.write_text("# nobody\n")
        server.send_signal(signal.SIGHUP)
        keys.write_text(line("carol") + line("bob"))
        server.send_signal(signal.SIGHUP)
        until(lambda: status("carol") == 200)
        assert status("bob") == 200
        keys.unlink()
        server.send_signal(signal.SIGHUP)
        assert (status("bob"), server.poll()) == (200, None)


def reload(server: Running) -> None:
    """What SIGHUP does, in the server's loop."""
    done = httpx2.post(server.url + "/reload", timeout=PATIENCE)
    assert done.status_code == 200


@pytest.fixture
def reloadable(link: Path) -> Iterator[Running]:
    def with_route(app: Any) -> None:
        @app.post("/reload")
        async def again() -> None:
            await app.state.models.reload()

    with running(ServerSettings(models={"tiny": link}), with_route) as server:
        server.wait_until_ready()
        yield server


def test_the_old_model_is_let_go_of_with_its_last_answer(
    reloadable: Running, other_folder: Path, link: Path
) -> None:
    models = reloadable.app.state.models
    old = weakref.ref(models.named("tiny").llm.llm)
    body = {**ENDLESS, "stream": True}
    with reloadable.client() as http, http.stream("POST", CHAT, json=body) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        switch(link, other_folder)
        reload(reloadable)
        gc.collect()
        assert old() is not None
        before = threading.active_count()
        next(pieces)
    until(lambda: gc.collect() >= 0 and old() is None)
    until(lambda: threading.active_count() < before)
    numbers = httpx2.get(reloadable.url + "/metrics").text
    assert 'tallyformer_running_answers{model="tiny"} 0.0' in numbers


def test_what_is_unchanged_or_damaged_leaves_the_model_as_it_is(
    reloadable: Running, other_folder: Path, link: Path
) -> None:
    models = reloadable.app.state.models
    loaded = models.named("tiny")
    reload(reloadable)
    assert models.named("tiny") is loaded
    (other_folder / "model.safetensors").write_bytes(b"x")
    switch(link, other_folder)
    reload(reloadable)
    assert models.named("tiny") is loaded
    link.unlink()
    reload(reloadable)
    assert models.named("tiny") is loaded
    assert content(ask(reloadable.url))


def test_a_closed_terminal_ends_a_server_that_it_began(tally_folder: Path) -> None:
    arguments = ["serve", "--port", "0", "--model", f"tiny={tally_folder}"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    with pexpect.spawn(command(), arguments, env=variables, timeout=PATIENCE) as server:  # type: ignore[arg-type]
        server.expect("model ready")
        server.kill(signal.SIGHUP)
        server.expect("ended")
        server.expect(pexpect.EOF)
        server.wait()
        assert server.exitstatus == 0
