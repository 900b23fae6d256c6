"""How long the quickstart trains, against an earlier checkout's quickstart.

    git worktree add BEFORE COMMIT
    python benchmarks/quickstart_time.py --before BEFORE --work FOLDER

Both runs go at the same time, each with one thread on a core of its own, so that what slows the
machine slows both. Compares the wall time that each training recorded; each runs once, so there is
no spread. Writes benchmarks/results/<date>-quickstart-time.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tallyformer.artifacts.atomic import write_json
from tallyformer.evaluation.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
HERE = Path(__file__).parents[1]
TRAININGS = ("pretrain", "teacher", "distill", "sft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--before", type=Path, required=True, help="a checkout of the commit before"
    )
    parser.add_argument("--work", type=Path, required=True, help="gets the two runs")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    checkouts = {"before": options.before.resolve(), "now": HERE}
    running = {
        name: _start(checkout, options.work.resolve() / name, core)
        for (name, checkout), core in zip(checkouts.items(), cores, strict=True)
    }
    for name, process in running.items():
        if process.wait():
            raise SystemExit(
                f"{name}: ended with {process.returncode}; see {options.work}/{name}.log"
            )
    found = {name: _found(options.work / name) for name in running}
    seconds = {
        name: sum(t["seconds"] for t in one["trainings"].values()) for name, one in found.items()
    }
    result = {
        "what": " ".join(__doc__.split("\n", 1)[0].split()),
        "command": "python benchmarks/quickstart_time.py --before BEFORE --work FOLDER",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commits": {name: _commit(checkout) for name, checkout in checkouts.items()},
        "machine": describe_machine(torch.device("cpu")),
        "threads_of_each": 1,
        "training_seconds": seconds,
        "ratio": seconds["now"] / seconds["before"],
        "runs": found,
    }
    target = RESULTS / f"{result['date'][:10]}-quickstart-time.json"
    write_json(target, result)
    print(target, f"ratio {result['ratio']:.3f}")


def _start(checkout: Path, out: Path, core: int) -> subprocess.Popen[bytes]:
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tallyformer.cli.main", "run"]
    command += ["--recipe", str(checkout / "recipes" / "quickstart.yaml"), "--out", str(out)]
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )


def _found(run: Path) -> dict[str, Any]:
    """Straight from the files: the two runs may have manifests of different formats."""
    trainings = {}
    for stage in TRAININGS:
        metrics = json.loads((run / stage / "manifest.json").read_text(encoding="utf-8"))["metrics"]
        trainings[stage] = {
            "seconds": metrics["wall_seconds"],
            **{name: metrics[name] for name in ("steps", "tokens", "validation_perplexity")},
        }
    evaluated = json.loads((run / "evaluate" / "manifest.json").read_text(encoding="utf-8"))
    return {"trainings": trainings, "evaluation": evaluated["metrics"]}


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
