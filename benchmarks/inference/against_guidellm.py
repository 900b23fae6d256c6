"""`tallyformer bench` and guidellm on the same server, in turn.

    python -m venv guidellm && guidellm/bin/pip install guidellm
    python benchmarks/inference/against_guidellm.py --guidellm guidellm/bin/guidellm --model FOLDER

Two servers: guidellm's own mock-server, which answers after times that it is told, and
`tallyformer serve` with FOLDER. Both tools keep the same number of streams busy with prompts of the
same kind and length and answers of the same length, one after the other, in several rounds. The
clients are Python and need about as much of a processor as a small model does, and what they take
from the server is part of what they measure: so the servers run on the first half of the cores and
the clients on the rest.

Writes benchmarks/results/<date>-bench-against-guidellm.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.versions import installed_versions
from tallyformer.bench.words import prompt_of_words
from tallyformer.evaluation.machine import describe_machine

RESULTS = Path(__file__).parents[1] / "results"
TALLYFORMER = Path(sys.executable).with_name("tallyformer")
PROMPTS = 20_000
WARMUP = 2.0
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
CORES = sorted(os.sched_getaffinity(0))
SERVERS, CLIENTS = CORES[: len(CORES) // 2], CORES[len(CORES) // 2 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--guidellm", type=Path, required=True, help="its command")
    parser.add_argument("--model", type=Path, required=True, help="a folder to serve")
    parser.add_argument("--streams", type=int, nargs="+", default=[1])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_prompts(place / "prompts.jsonl", options)
        for name, server in (("mock-server of guidellm", mock), ("tallyformer serve", served)):
            with server(options, place) as url:
                for streams in options.streams:
                    title = f"{name}, {streams} streams"
                    found[title] = compare(url, streams, options, place)
                    print(title, json.dumps(found[title], indent=2))
    date = datetime.date.today().isoformat()
    write_json(
        RESULTS / f"{date}-bench-against-guidellm.json",
        {
            "command": " ".join(["python", *map(shown, sys.argv)]),
            "settings": {k: v for k, v in vars(options).items() if k not in ("guidellm", "model")},
            "model": options.model.name,
            "guidellm": version(options.guidellm),
            "machine": describe_machine(),
            "versions": installed_versions(),
            "compared": found,
        },
    )


def compare(url: str, streams: int, options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The rounds of both tools, and their ratios."""
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        rounds["theirs"].append(guidellm(url, streams, options, place))
        rounds["ours"].append(ours(url, streams, options, place))
    return compared(rounds)


def compared(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Ratios of the medians, and of the least disturbed rounds: the shortest end to end.

    Others on the machine, while they take the processor, can only make answers slower.
    """
    names = list(rounds["ours"][0])
    medians, best = (
        {tool: pick(runs) for tool, runs in rounds.items()}
        for pick in (
            lambda runs: {name: statistics.median(run[name] for run in runs) for name in names},
            lambda runs: min(runs, key=lambda run: run["end_to_end_ms, median"]),
        )
    )
    return {
        "ours / theirs, least disturbed round": ratios(best),
        "ours / theirs, medians of rounds": ratios(medians),
        "rounds": rounds,
    }


def ratios(of: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: round(of["ours"][name] / theirs, 4) for name, theirs in of["theirs"].items()}


def ours(url: str, streams: int, options: argparse.Namespace, place: Path) -> dict[str, float]:
    out = place / f"ours-{time.time()}"
    run(
        *(TALLYFORMER, "bench", url, "--model", "model", "--endpoint", "completions"),
        *("--streams", streams, "--prompt-tokens", options.prompt_tokens, "--load", "none"),
        *("--output-tokens", options.output_tokens, "--seconds", options.seconds),
        *("--warmup", WARMUP, "--out", out),
    )
    cell = json.loads((out / "results.json").read_text())["variants"][0]["closed_loops"][0]
    assert not cell["failures"], cell["failures"]
    return {
        "ttft_ms, median": cell["ttft_ms"]["percentiles"]["50"],
        "itl_ms, mean": cell["itl_ms"]["mean"],
        "end_to_end_ms, median": cell["end_to_end_ms"]["percentiles"]["50"],
        "tokens_per_second": cell["tokens_per_second"],
    }


def guidellm(url: str, streams: int, options: argparse.Namespace, place: Path) -> dict[str, float]:
    out = place / "theirs.json"
    backend = f"kind=openai_http,target={url},model=model,request_format=/v1/completions"
    run(
        *(options.guidellm, "run", "--backend", f"{backend},http2=false"),
        *("--profile", f"kind=concurrent,streams={streams},warmup={WARMUP}"),
        *("--constraint", f"kind=max_duration,seconds={options.seconds + WARMUP}"),
        *("--tokenizer", f"kind=hf_auto,model={options.model}"),
        *("--data", f"kind=json_file,path={place / 'prompts.jsonl'}"),
        *("--output", f"kind=json,path={out}", "--disable-console-interactive"),
    )
    metrics = json.loads(out.read_text())["benchmarks"][0]["metrics"]
    assert not metrics["request_totals"]["errored"], metrics["request_totals"]

    def of(name: str, which: str, kind: str = "successful") -> float:
        return float(metrics[name][kind][which])

    return {
        "ttft_ms, median": of("time_to_first_token_ms", "median"),
        "itl_ms, mean": of("inter_token_latency_ms", "mean"),
        "end_to_end_ms, median": 1000 * of("request_latency", "median"),
        "tokens_per_second": of("output_tokens_per_second", "mean", "total"),
    }


def write_prompts(path: Path, options: argparse.Namespace) -> None:
    with path.open("w") as file:
        for number in range(PROMPTS):
            prompt = prompt_of_words(options.prompt_tokens, "guidellm", time.time_ns(), number)
            row = {"prompt": prompt, "output_tokens_count": options.output_tokens}
            file.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def mock(options: argparse.Namespace, place: Path) -> Iterator[str]:
    port = free_port()
    command = (
        *(options.guidellm, "mock-server", "--port", port, "--model", "model"),
        *("--ttft-ms", 100, "--itl-ms", 20),
        *("--output-tokens", options.output_tokens),
    )
    with started(command, f"http://127.0.0.1:{port}", "/v1/models") as url:
        yield url


@contextlib.contextmanager
def served(options: argparse.Namespace, place: Path) -> Iterator[str]:
    port = free_port()
    command = (TALLYFORMER, "serve", "--port", port, "--model", f"model={options.model}")
    with started(command, f"http://127.0.0.1:{port}", "/ready") as url:
        yield url


@contextlib.contextmanager
def started(command: tuple[object, ...], url: str, path: str) -> Iterator[str]:
    """A server, from when it answers `path` until the end of the block."""
    with subprocess.Popen(
        on(SERVERS, command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    ) as process:
        try:
            limit = time.monotonic() + 300
            while not answers(url + path):
                assert time.monotonic() < limit and process.poll() is None, command
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def run(*command: object) -> None:
    done = subprocess.run(
        on(CLIENTS, command), capture_output=True, text=True, timeout=900, env=ENVIRONMENT
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def on(cores: list[int], command: tuple[object, ...]) -> list[str]:
    """The command, bound to cores; to all where there is but one."""
    bound = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
    return [*bound, *map(str, command)]


def shown(argument: str) -> str:
    """A path by its name."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def version(command: Path) -> str:
    done = subprocess.run([str(command), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
