"""How long the choice of an id takes, a row: torch's sampler, the native one, an earlier one.

Logits of a model's size and shape (50,260 ids, normal with a standard deviation of 3), temperature
0.7, top-k 50 and top-p 0.9, one thread. Each round measures all of them in turn, each in a process
of its own.

    python benchmarks/sampler.py [--before CHECKOUT]

CHECKOUT is a folder with an earlier version of this repository. The result goes to
benchmarks/results/DATE-sampler.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.versions import installed_versions
from tallyformer.evaluation.machine import describe_machine

HERE = Path(__file__)
VOCABULARY = 50_260
ROWS = (1, 16, 64)
REPEATS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="an earlier checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=["torch", "native"], help="what a round starts")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options.measure)))
        return
    source = HERE.parents[1] / "src"
    kinds = {"torch": ("torch", source), "native": ("native", source)}
    if options.before:
        kinds["torch before"] = ("torch", options.before / "src")
    rounds = [
        {name: _in_a_process(*kind) for name, kind in kinds.items()} for _ in range(options.rounds)
    ]
    result = {
        "what": "milliseconds a row to choose an id",
        "vocabulary": VOCABULARY,
        "settings": "temperature 0.7, top_k 50, top_p 0.9; one thread",
        "command": " ".join(["python", *sys.argv]),
        "machine": describe_machine(torch.device("cpu")),
        "versions": installed_versions(),
        "median": {name: _medians([r[name] for r in rounds]) for name in kinds},
        "rounds": rounds,
    }
    print(json.dumps(result["median"], indent=2))
    today = datetime.date.today().isoformat()
    write_json(HERE.parent / "results" / f"{today}-sampler.json", result)


def _in_a_process(kind: str, source: Path) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    command = [sys.executable, str(HERE), "--measure", kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {rows: round(statistics.median(r[rows] for r in rounds), 4) for rows in rounds[0]}


def _measure(kind: str) -> dict[str, float]:
    """Milliseconds of this process's time a row, for several numbers of rows."""
    from tallyformer.inference.engine import runner
    from tallyformer.inference.sampling_params import SamplingParams

    # An earlier checkout has it under its earlier name.
    row_class: Any = getattr(runner, "LogitsRow", None) or runner.Row  # type: ignore[attr-defined]
    params = SamplingParams(temperature=0.7, top_k=50, top_p=0.9)
    choose = _torch() if kind == "torch" else _native()
    found = {}
    for count in ROWS:
        logits = np.random.default_rng(0).normal(0, 3, (count, VOCABULARY)).astype(np.float32)
        rows = [
            row_class(params=params, counts={}, prompt_ids=[1], uniform=(i + 0.5) / count)
            for i in range(count)
        ]
        choose(logits, rows)
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            choose(logits, rows)
            times.append(time.process_time() - start)
        found[str(count)] = 1000 * statistics.median(times) / count
    return found


def _torch() -> Callable[[np.ndarray, Any], Any]:
    from tallyformer.inference.engine import torch_sampler

    torch.set_num_threads(1)
    return lambda logits, rows: torch_sampler.choose(torch.from_numpy(logits), rows)


def _native() -> Callable[[np.ndarray, Any], Any]:
    from tallyformer.inference.native.runner import NativeRunner
    from tallyformer.model.shape import shape_of

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = {"model_type": "tallyformer", "vocab_size": VOCABULARY, "intermediate_size": 8}
    shape = shape_of({**config, **sizes})
    tensors = {name: np.ones(size, np.float32) for name, size in shape.tensors().items()}
    return NativeRunner(
        shape, tensors.__getitem__, dtype="float32", vocab_size=VOCABULARY, threads=1
    ).choose


if __name__ == "__main__":
    main()
