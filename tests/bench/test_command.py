"""`tallyformer bench` as a process."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tallyformer.cli.failures import exit_status_of
from tallyformer.cli.main import invoke

from ..cli.conftest import command
from ..inference.conftest import CONTEXT
from ..server.conftest import until
from ..server.test_process import process
from .conftest import PATIENCE, FakeServer

SHORT = (
    *("--prompt-tokens", "4,8", "--streams", "1,2", "--load", "0.5", "--output-tokens", "4"),
    *("--seconds", "0.3", "--warmup", "0.1"),
)


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [command(), "bench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
    )


def _run(*arguments: object) -> tuple[int, str, str]:
    with _start(*arguments) as process:
        out, said = process.communicate(timeout=PATIENCE)
    return process.returncode, out, said


def test_a_folders_report_has_every_cell_in_every_form(tally_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    status, printed, said = _run(
        tally_folder, *SHORT, "--dtype", "float32,bfloat16", "--device", "cpu", "--out", out
    )
    assert status == 0, said
    assert printed == f"report: {out / 'report.html'}\n"
    found = json.loads((out / "results.json").read_text())
    assert found["partial"] is None
    assert [v["facts"]["dtype"] for v in found["variants"]] == ["float32", "bfloat16"]
    for variant in found["variants"]:
        assert [c["prompt_lengths"] for c in variant["closed_loops"]] == [[4], [4], [8], [8]]
        assert [c["streams"] for c in variant["closed_loops"]] == [1, 2, 1, 2]
        assert [c["load"] for c in variant["open_loops"]] == [0.5]
        for cell in [*variant["closed_loops"], variant["capacity"]]:
            assert cell["requests"] > 0 and not cell["failures"]
            assert cell["output_tokens"] == 4
            assert cell["tokens_per_second"] > 0
        assert [c["prompt_tokens"] for c in variant["closed_loops"]] == [4, 4, 8, 8]
        rate = variant["capacity"]["requests_per_second"] / 2
        assert variant["open_loops"][0]["rate"] == pytest.approx(rate)
    cells = 2 * 6
    with (out / "table.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == cells
    requests = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert {(r["dtype"], r["cell"]) for r in requests} and len(requests) > cells
    page = (out / "report.html").read_text()
    assert "<h1>" in page and page.count("<table>") >= 6 and "No request failed" in page
    plots = list((out / "plots").glob("*.svg"))
    assert plots and all("var(" not in plot.read_text() for plot in plots)


def test_prompts_that_a_model_does_not_read_whole_are_left_out(
    tally_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    lengths = ("--prompt-tokens", f"4,{CONTEXT},{CONTEXT + 1},250", "--load", "none")
    status, _, said = _run(tally_folder, *SHORT, *lengths, "--device", "cpu", "--out", out)
    assert status == 0, said
    assert f"prompts of {CONTEXT + 1}/250 are left out" in said
    [variant] = json.loads((out / "results.json").read_text())["variants"]
    assert {c["prompt_tokens"] for c in variant["closed_loops"]} == {4, CONTEXT}
    assert f"prompts of {CONTEXT + 1}/250 tokens" in (out / "report.html").read_text()


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_our_own_server_is_measured_without_a_failure(
    endpoint: str, tally_folder: Path, tmp_path: Path
) -> None:
    with process("--model", f"tiny={tally_folder}") as (_, url):
        until(lambda: httpx2.get(url + "/ready").status_code == 200)
        out = tmp_path / "report"
        options = (*SHORT, "--prompt-tokens", "16", "--endpoint", endpoint)
        status, _, said = _run(url, *options, "--out", out)
    assert status == 0, said
    variant = json.loads((out / "results.json").read_text())["variants"][0]
    assert variant["facts"]["endpoint"] == endpoint and variant["model"] == "tiny"
    for cell in [*variant["closed_loops"], variant["capacity"]]:
        assert cell["requests"] > 0 and not cell["failures"]
        assert cell["output_tokens"] == 4
        # A tiny vocabulary has several tokens a word, so lengths are met on average alone.
        assert 8 <= cell["prompt_tokens"] <= 24


def test_a_folder_that_is_in_use_is_not_touched(tally_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    status, _, said = _run(tally_folder, *SHORT, "--out", tmp_path)
    assert status == 2 and "not empty" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_ctrl_c_leaves_a_report_of_what_was_measured(
    serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    server = serve(prefill=0.01)
    out = tmp_path / "report"
    options = ("--streams", "1,2", "--prompt-tokens", "4", "--seconds", "1", "--load", "1")
    with _start(server.url, *options, "--output-tokens", "4", "--out", out) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=PATIENCE)
    assert "1 stream" in first
    assert process.returncode == 130
    assert "Traceback" not in rest
    found = json.loads((out / "results.json").read_text())
    assert found["partial"]
    assert len(found["variants"][0]["closed_loops"]) in (1, 2)
    assert "Partial:" in (out / "report.html").read_text()


def test_a_server_that_goes_away_leaves_a_report_of_what_was_measured(
    serve: Callable[..., FakeServer], tmp_path: Path
) -> None:
    """From some request on the server refuses; what came before is kept, with the failures."""
    server = serve(spoil=lambda number: "503" if number > 12 else "")
    out = tmp_path / "report"
    options = ("--streams", "1", "--prompt-tokens", "4", "--output-tokens", "2", "--load", "1")
    status, _, said = _run(
        server.url, *options, "--seconds", "0.5", "--warmup", "0.1", "--out", out
    )
    assert status == 3
    assert "HTTP 503" in said.splitlines()[-1]
    assert "Traceback" not in said
    found = json.loads((out / "results.json").read_text())
    assert found["partial"] and len(found["variants"][0]["closed_loops"]) == 1


def test_what_is_wrong_is_one_line(
    serve: Callable[..., FakeServer],
    tally_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = serve().url
    cases: list[tuple[list[object], int, str]] = [
        ([tmp_path], 2, "has no config.json"),
        (["localhost:8000"], 2, "nor a URL"),
        (["ftp://x"], 2, "is not a server's URL"),
        (["http://me:secret@127.0.0.1:1/v1"], 2, "--api-key-file"),
        ([tally_folder, "--streams", "0"], 2, "--streams"),
        ([tally_folder, "--streams", "a"], 2, "--streams"),
        ([tally_folder, "--load", "nan"], 2, "--load"),
        ([tally_folder, "--prompt-tokens", ""], 2, "--prompt-tokens"),
        ([tally_folder, "--model", "x"], 2, "--model"),
        ([tally_folder, "--prompt-tokens", "33,250"], 2, "--prompt-tokens"),
        ([tally_folder, "--dtype", "float31"], 2, "dtype"),
        # Before anything is measured.
        ([tally_folder, *SHORT, "--dtype", "float32,float31"], 2, "dtype"),
        ([tally_folder, *SHORT, "--device", "cpu,tpu"], 2, "device"),
        ([url, "--dtype", "float32"], 2, "--dtype"),
        ([url, "--device", "cpu"], 2, "--device"),
        ([url, "--runner", "torch"], 2, "--runner"),
        ([url, "--api-key-file", tmp_path / "none"], 2, "--api-key-file"),
        ([serve(key="k").url], 3, "--api-key-file"),
        ([serve(usage=False).url], 3, "--count-chunks"),
    ]
    for number, (arguments, status, words) in enumerate(cases):
        out = tmp_path / f"out-{number}"
        typed = ["bench", *map(str, arguments), "--out", str(out)]
        found = exit_status_of(lambda: invoke(typed))  # noqa: B023 - called at once
        said = capfd.readouterr().err
        assert (found, len(said.splitlines())) == (status, 1), said
        assert words in said
        assert not out.exists()
