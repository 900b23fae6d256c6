"""`generate`, `chat` and `doctor` through the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tallyformer.inference.conversation import Chat
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams


@pytest.fixture(scope="module")
def llm(model_folder: Path) -> LLM:
    return LLM.from_pretrained(model_folder, device="cpu")


def test_generate_prints_what_the_api_generates(
    tallyformer: Any, model_folder: Path, llm: LLM
) -> None:
    flags = ["--max-tokens", "20", "--seed", "3", "--top-k", "20", "--stop", "zz", "--ignore-eos"]
    params = SamplingParams(max_tokens=20, seed=3, top_k=20, stop="zz", ignore_eos=True)
    done = tallyformer(
        "generate", "--model", model_folder, "--device", "cpu", *flags, stdin="Bond\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == llm.generate("Bond", params)[0].text + "\n"
    assert done.stderr == ""


def test_a_flag_out_of_range_is_named_before_anything_is_loaded(tallyformer: Any) -> None:
    done = tallyformer("generate", "--model", "nowhere", "--prompt", "x", "--top-p", "0")
    assert done.returncode == 2
    assert done.stderr == "error: --top-p: must be a number above 0, at most 1; it is 0.0\n"


def test_a_model_that_is_not_there_is_one_line(tallyformer: Any, tmp_path: Path) -> None:
    done = tallyformer("generate", "--model", tmp_path / "no", "--prompt", "x")
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "no such model folder" in done.stderr


def test_a_model_that_is_not_there_is_told_though_the_hub_is_silent(
    tallyformer: Any, tmp_path: Path
) -> None:
    """A path is not looked for on the hub at all; a name is, for a bounded time and once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        for model, expected in {
            "runs/nothing": "runs/nothing: no such model folder",
            "owner/nothing": "owner/nothing: no such folder, and on the hub: the hub does not",
        }.items():
            done = tallyformer("chat", "--model", model, env=env)
            assert done.returncode == 3 and done.stderr.count("\n") == 1
            assert expected in done.stderr
        asked = _requests(silent)
    # The hub's own client may ask for other things first.
    assert [line for line in asked if "nothing" in line] == ["GET /api/models/owner/nothing"]


def _requests(server: socket.socket) -> list[str]:
    """Method and path of each request that has waited for an answer in vain."""
    server.settimeout(0)
    asked = []
    with contextlib.suppress(BlockingIOError):
        while True:
            with server.accept()[0] as connection:
                asked.append(connection.recv(1000).decode().partition(" HTTP/")[0])
    return asked


def test_a_piped_chat_answers_each_line_and_ends_at_its_end(
    tallyformer: Any, model_folder: Path, llm: LLM
) -> None:
    params = SamplingParams(max_tokens=12, seed=1)
    session = Chat(llm, params)
    expected = ["".join(session.ask(q)) for q in ("profit?", "bond?")]
    session.reset()
    expected.append("".join(session.ask("bond?")))
    lines = "profit?\nbond?\n\n/reset\nbond?\n/what\n"
    done = tallyformer(
        "chat", "--model", model_folder, "--max-tokens", 12, "--seed", 1, stdin=lines
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(answer + "\n" for answer in expected)
    assert "forgotten" in done.stderr and "/reset and /exit" in done.stderr


def test_a_question_may_begin_with_a_slash(tallyformer: Any, model_folder: Path, llm: LLM) -> None:
    asked = {
        "//what": "/what",
        "/r/bonds: what is it?": "/r/bonds: what is it?",
        "/exit strategy?": "/exit strategy?",
        "// of a half?": "/ of a half?",
        "//": "/",
    }
    session = Chat(llm, SamplingParams(max_tokens=5, seed=1))
    expected = ["".join(session.ask(question)) for question in asked.values()]
    lines = "".join(f"{line}\n/what\n/\n" for line in asked)
    options = ["--model", model_folder, "--max-tokens", 5, "--seed", 1]
    done = tallyformer("chat", *options, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(answer + "\n" for answer in expected)
    assert done.stderr.count("To ask '/what', type '//what'.") == len(asked)


def test_a_chat_goes_on_after_a_line_that_cannot_be_decoded(model_folder: Path, llm: LLM) -> None:
    session = Chat(llm, SamplingParams(max_tokens=5, seed=1))
    expected = ["".join(session.ask(q)) for q in ("profit?", "Zinsen für Jürgen?")]
    lines = b"profit?\n" + b"Cr\xe9dit?\n\xff\xfe\n" + "Zinsen für Jürgen?".encode()
    script = Path(sys.executable).with_name("tallyformer")
    options = ["--max-tokens", "5", "--seed", "1", "--device", "cpu"]
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            [script, "chat", "--model", model_folder, *options],
            input=lines,
            capture_output=True,
            timeout=300,
            env={**os.environ, "LC_ALL": locale, "NO_COLOR": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() == "".join(answer + "\n" for answer in expected)
        assert done.stderr.count(b"so it was left out") == 2
        assert b"Traceback" not in done.stderr


def test_ctrl_c_ends_an_answer_and_ctrl_d_the_chat(model_folder: Path) -> None:
    script = str(Path(sys.executable).with_name("tallyformer"))
    options = ["--max-tokens", "1000000", "--ignore-eos", "--device", "cpu"]
    terminal = pexpect.spawn(
        script,
        ["chat", "--model", str(model_folder), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb"},
        encoding="utf-8",
        codec_errors="replace",
        timeout=120,
    )
    terminal.expect("> ")
    terminal.sendline("profit?")
    terminal.expect(r"\?[^\n]*\n")  # the terminal's echo of the question
    terminal.expect(r"[^\r\n]{20}")  # the answer has begun
    time.sleep(0.2)
    terminal.kill(signal.SIGINT)
    terminal.expect("\n> ")
    terminal.sendline("/reset")
    terminal.expect("forgotten")
    terminal.expect("> ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_closed_standard_streams_are_empty_ones(command: str, model_folder: Path) -> None:
    script = Path(sys.executable).with_name("tallyformer")
    line = f"{script} {command} --model {model_folder} --max-tokens 3 --device cpu"
    for closed in ("<&-", ">&- </dev/null", "2>&- </dev/null"):
        done = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_the_command_quietly(model_folder: Path) -> None:
    script = Path(sys.executable).with_name("tallyformer")
    line = f"{script} generate --model {model_folder} --prompt x --max-tokens 100000 --ignore-eos"
    done = subprocess.run(["sh", "-c", f"{line} | head -c 20"], capture_output=True)
    assert done.stdout and not done.stderr


def test_a_run_folder_is_told_where_its_model_is(
    tallyformer: Any, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(model_folder)
    done = tallyformer("generate", "--model", tmp_path / "run", "--prompt", "x")
    assert done.returncode == 3
    assert done.stderr.endswith(f"so it is not a model. Give {tmp_path / 'run' / 'model'}\n")


def test_doctor_lists_what_it_found_and_exits_0(tallyformer: Any, tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "1"}
    done = tallyformer("doctor", "--json", "--out", tmp_path / "new" / "runs", env=environment)
    assert done.returncode == 0, done.stderr
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert found["torch"]["state"] == "ok" and found["cores"]["value"].endswith("usable")
    assert found["hub"]["state"] == "limited" and found["hub"]["fix"]
    assert str(tmp_path) in found["disk"]["value"] and not (tmp_path / "new").exists()
    for finding in found.values():
        assert finding["state"] in ("ok", "limited", "missing")
        assert finding["state"] == "ok" or finding["fix"]


def test_doctor_does_not_wait_for_a_hub_that_hangs(tallyformer: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = tallyformer("doctor", env={"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"})
    assert done.returncode == 0
    assert "cannot be reached" in done.stdout


def test_other_options_are_those_of_the_api(tallyformer: Any, model_folder: Path, llm: LLM) -> None:
    params = SamplingParams(max_tokens=30, seed=3, repetition_penalty=1.3, min_tokens=30, look_up=4)
    flags = ["--max-tokens", "30", "--seed", "3", "--repetition-penalty", "1.3"]
    flags += ["--min-tokens", "30", "--look-up", "4"]
    done = tallyformer("generate", "--model", model_folder, "--device", "cpu", *flags, stdin="Bond")
    assert done.returncode == 0, done.stderr
    assert done.stdout == llm.generate("Bond", params)[0].text + "\n"


def test_an_answer_has_the_form_of_a_schema(
    tallyformer: Any, model_folder: Path, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["buy", "sell"]}')
    flags = ("--model", model_folder, "--device", "cpu", "--json-schema", schema)
    done = tallyformer("generate", *flags, "--prompt", "Bond")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) in ("buy", "sell")
    told = tallyformer("chat", *flags, stdin="What now?\n")
    assert json.loads(told.stdout) in ("buy", "sell")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "schema.json"),
        ("{", "schema.json: "),
        ('{"type": "nothing"}', "--json-schema: cannot be used"),
        ('{"$ref": "http://example.com/x"}', "--json-schema: cannot be used"),
    ],
)
def test_a_schema_that_cannot_be_used_is_one_line(
    tallyformer: Any, model_folder: Path, tmp_path: Path, text: str | None, expected: str
) -> None:
    schema = tmp_path / "schema.json"
    if text is not None:
        schema.write_text(text)
    done = tallyformer(
        "generate", "--model", model_folder, "--json-schema", schema, "--prompt", "Bond"
    )
    assert done.returncode in (2, 3) and done.stdout == ""
    assert expected in done.stderr and done.stderr.count("\n") == 1
