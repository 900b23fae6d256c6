"""What the server is held to, measured on this machine's CPU.

    python benchmarks/inference/make_models.py --tokenizer GPT2_FOLDER --out DIR
    python benchmarks/server/bars.py --model DIR/tally-int8

Six parts, all over a real socket, the load generator always a process of its own:

- `overhead`: 32 streams, and one, from `AsyncLLM` in a process and from the server, in turn.
- `overload`: ten times the requests that it can answer, for two minutes.
- `hang_ups`: a thousand clients that go away at random moments.
- `sigterm`: 64 streams at the time of SIGTERM.
- `day`: mixed traffic of 24 hours, compressed.
- `start`: from the start of the process until it is ready; its memory after 64 streams.

`overhead` shares the cores in two ways: `apart`, engine or server on the first core and the
generator on the second, and `together`, all of them on all cores, where the generator takes from
the server what a client on another machine would not. The others are `together`.

Writes benchmarks/results/<date>-server.json, or the file of --out; --rehearse takes seconds and
shows that it runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import HERE, Cores, Found, Server, all_cores, serving

sys.path.insert(0, str(HERE.parent / "gpu"))

from measuring import spread, write_result

RESULTS = HERE.parent / "results"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is done."""

    rounds: int = 7
    seconds: float = 10.0
    prompt: int = 32
    answer: int = 64
    streams: int = 32
    overload_seconds: float = 120.0
    most_a_second: float = 3000.0
    clients: int = 1000
    at_once: int = 100
    held: int = 64
    held_answer: int = 200
    requests: int = 15_000
    hour_seconds: float = 25.0
    starts: int = 10

    def load(self, do: str, **more: Any) -> Found:
        lengths = {"prompt_tokens": self.prompt, "output_tokens": self.answer}
        return {"do": do, **lengths, "warmup": min(2.0, self.seconds), **more}


REHEARSAL = Sizes(
    rounds=1,
    seconds=0.5,
    prompt=1,
    answer=8,
    streams=4,
    overload_seconds=2.0,
    most_a_second=100.0,
    clients=30,
    at_once=10,
    held=8,
    held_answer=100,
    requests=60,
    hour_seconds=0.1,
    starts=1,
)


class Engine:
    """The engine alone, in its process."""

    def __init__(self, folder: Path, cores: Cores) -> None:
        pinned = [] if cores is None else ["taskset", "--cpu-list", ",".join(map(str, cores))]
        self._process = subprocess.Popen(
            [*pinned, sys.executable, str(HERE / "engine.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def ask(self, load: Found) -> Found:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(load) + "\n")
        stdin.flush()
        found: Found = json.loads(stdout.readline())
        return found

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def overhead(folder: Path, sizes: Sizes) -> Found:
    """Tokens a second and time to the first token of the server, and of the engine alone."""
    cores = all_cores()
    ways: dict[str, tuple[Cores, Cores]] = {"together": (None, None)}
    if len(cores) > 1 and sizes is not REHEARSAL:
        ways["apart"] = ([cores[0]], [cores[1]])
    return {way: _overhead(folder, sizes, *placed) for way, placed in ways.items()}


def _overhead(folder: Path, sizes: Sizes, cores: Cores, others: Cores) -> Found:
    engine = Engine(folder, cores)
    many = sizes.load("closed", streams=sizes.streams, seconds=sizes.seconds)
    alone = sizes.load("closed", streams=1, seconds=sizes.seconds / 2)
    found: dict[str, list[Found]] = {"engine": [], "server": []}
    with serving(folder, cores=cores) as server:
        subjects: dict[str, Callable[[Found], Found]] = {
            "engine": engine.ask,
            "server": lambda load: server.ask(load, others),
        }
        for number in range(sizes.rounds):
            for name in list(subjects)[:: 1 if number % 2 == 0 else -1]:
                found[name].append(_speeds(subjects[name](many), subjects[name](alone)))
                print(name, json.dumps(found[name][-1]), flush=True)
    engine.end()
    return _compared(found)


def _speeds(many: Found, alone: Found) -> Found:
    failed = [row[3] for row in (*many["requests"], *alone["requests"]) if row[3]]
    if failed:
        sys.exit(f"error: {len(failed)} requests failed: {failed[0]}")
    return {
        "tokens_per_second": many["tokens"] / many["seconds"],
        "ttft_ms": 1000 * statistics.median(row[1] for row in alone["requests"]),
        "ttft_ms_many": 1000 * statistics.median(row[1] for row in many["requests"]),
        "generator_share_of_a_core": many.get("generator_share_of_a_core"),
    }


def _compared(found: dict[str, list[Found]]) -> Found:
    pairs = list(zip(found["engine"], found["server"], strict=True))
    share = [1 - s["tokens_per_second"] / e["tokens_per_second"] for e, s in pairs]
    first = [s["ttft_ms"] - e["ttft_ms"] for e, s in pairs]
    return {
        "share_of_throughput": {**spread(share), "bar": "<= 0.10"},
        "ttft_ms_more": {**spread(first), "bar": "<= 1"},
        "rounds": found,
    }


def overload(folder: Path, sizes: Sizes) -> Found:
    """What becomes of ten times the requests that can be answered."""
    with serving(folder) as server:
        full = sizes.load("closed", streams=64, seconds=sizes.seconds)
        able = server.ask(full)
        capacity = len(able["requests"]) / able["seconds"]
        rate = min(10 * capacity, sizes.most_a_second)
        with server.watching():
            load = sizes.load("open", rate=rate, seconds=sizes.overload_seconds)
            seen = server.ask(load)
        outcomes = Counter(row[3] or "answered" for row in seen["requests"])
        refused = [1000 * row[2] for row in seen["requests"] if row[3] == "HTTP 429"]
        return {
            "capacity_requests_per_second": capacity,
            "sent_per_second": len(seen["requests"]) / seen["seconds"],
            "outcomes": outcomes,
            "bad": {k: v for k, v in outcomes.items() if k not in ("answered", "HTTP 429")},
            "answered_of_capacity": outcomes["answered"] / seen["seconds"] / capacity,
            "refusal_ms": {**_percentiles(refused), "bar": "<= 50"},
            "memory": _growth(server.memory_mb),
            "generator_share_of_a_core": seen["generator_share_of_a_core"],
            "answers_afterwards": _answers(server, sizes),
        }


def hang_ups(folder: Path, sizes: Sizes) -> Found:
    """Whether clients that go away leave anything behind."""
    with serving(folder) as server:
        load = sizes.load(
            "hang_up", clients=sizes.clients, at_once=sizes.at_once, longest=2.0, seconds=0
        )
        seen = server.ask(load)
        free, seconds = _freed(server)
        return {
            "outcomes": seen["outcomes"],
            "all_places_free": free,
            "after_seconds": seconds,
            "answers_afterwards": _answers(server, sizes),
        }


def _freed(server: Server) -> tuple[bool, float]:
    began = time.monotonic()
    names = ("tallyformer_running_answers", "tallyformer_waiting_answers")
    while any(server.metric(name) for name in names):
        if time.monotonic() - began > 30:
            return False, 30.0
        time.sleep(0.01)
    return True, round(time.monotonic() - began, 3)


def _answers(server: Server, sizes: Sizes) -> bool:
    """Whether all its slots answer at once."""
    return not server.ask(sizes.load("at_once", streams=64, seconds=0))["cut"]


def sigterm(folder: Path, sizes: Sizes) -> Found:
    """Streams that are cut when the server is told to end."""
    with serving(folder) as server:
        load = sizes.load("at_once", streams=sizes.held, output_tokens=sizes.held_answer)
        with server.asking(load) as generator:
            generator.wait_until_begun()
            began = time.monotonic()
            status = server.end()
            seconds = time.monotonic() - began
            seen = generator.result()
    return {**seen, "exit_status": status, "seconds_to_the_end": round(seconds, 2)}


def day(folder: Path, sizes: Sizes) -> Found:
    """Memory over a day, all slots having been used before."""
    with serving(folder) as server:
        assert _answers(server, sizes)
        load = {"requests": sizes.requests, "hour_seconds": sizes.hour_seconds}
        load["most_words"] = 3 * sizes.prompt
        with server.watching():
            seen = server.ask(sizes.load("day", **load))
        free, _ = _freed(server)
        wrong = {k: v for k, v in seen["outcomes"].items() if not k.endswith("as it should be")}
        return {
            "outcomes": seen["outcomes"],
            "not_as_it_should_be": wrong,
            "not_sent": seen["not_sent"],
            "all_places_free": free,
            "memory": _growth(server.memory_mb),
        }


def start(folder: Path, sizes: Sizes) -> Found:
    """Seconds until it is ready, and megabytes; files in the system's cache.

    Each slot that has been used keeps its keys and values, so memory is told after one answer, and
    when all slots have worked.
    """
    rows = []
    for _ in range(sizes.starts):
        with serving(folder) as server:
            row = {"ready_seconds": server.ready_seconds, "cpu_seconds": server.cpu_seconds()}
            assert not server.ask(sizes.load("at_once", streams=1))["cut"]
            row["memory_mb"] = server.memory()
            assert _answers(server, sizes)
            row["memory_mb_after_64_streams"] = server.memory()
            rows.append(row)
    rows = rows[1:] or rows  # the first one fills the system's cache
    found = {name: spread([row[name] for row in rows]) for name in rows[0]}
    found["ready_seconds"]["bar"], found["memory_mb"]["bar"] = "<= 2", "<= 250"
    return found


def _percentiles(values: Sequence[float]) -> Found:
    if not values:
        return {"count": 0}
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    ends = {"least": round(ordered[0], 3), "most": round(ordered[-1], 3)}
    return {"count": len(ordered), **ends, "median": at(0.5), "p95": at(0.95), "p99": at(0.99)}


def _growth(memory: Sequence[tuple[float, float]]) -> Found:
    """Medians of the second quarter and of the last, which are equal where memory is flat."""
    values = [mb for _, mb in memory]
    if len(values) < 4:
        return {"samples": len(values)}
    quarter = len(values) // 4
    early = statistics.median(values[quarter : 2 * quarter])
    late = statistics.median(values[-quarter:])
    every = max(1, len(memory) // 48)
    return {
        "second_quarter_mb": early,
        "last_quarter_mb": late,
        "growth": round(late / early - 1, 4),
        "most_mb": max(values),
        "course": [(round(second, 1), mb) for second, mb in memory[::every]],
    }


PARTS: dict[str, Callable[[Path, Sizes], Found]] = {
    part.__name__: part for part in (start, overhead, sigterm, hang_ups, overload, day)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder to serve")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = REHEARSAL if options.rehearse else Sizes()
    found = {}
    for name in options.only:
        print(f"{name} ...", flush=True)
        found[name] = PARTS[name](options.model, sizes)
        shown = {k: v for k, v in found[name].items() if k not in ("rounds", "together", "apart")}
        print(json.dumps(shown, indent=2), flush=True)
    path = options.out or RESULTS / f"{datetime.date.today()}-server.json"
    what = __doc__.split("\n", 1)[0]
    sizes_told = {name: getattr(sizes, name) for name in sizes.__dataclass_fields__}
    write_result(path, what, None, {"model": options.model.name, "sizes": sizes_told, **found})


if __name__ == "__main__":
    main()
