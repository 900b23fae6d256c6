"""The questions of the quickstart's `evaluate`, facts and arithmetic, now and with an earlier code.

    python benchmarks/inference/evaluation_answers.py MODEL_FOLDER --before CHECKOUT

MODEL_FOLDER is runs/quickstart/model. Both ask the 456 facts and 100 held-out examples greedily, at
most 80 tokens each, in float32, as the stage does, each with its own package in a process of its
own, in turns. CHECKOUT is a working copy of an earlier commit with its own `.venv`.

Writes benchmarks/results/<date>-evaluation-answers.json, or the file of --out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

from measuring import spread, write_result

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PROGRAM = """
import json, sys, time
from tallyformer.corpus.questions import facts
from tallyformer.evaluation.answers import greedy_answers
from tallyformer.corpus.worked_examples import held_out_examples
from tallyformer.evaluation.arithmetic import ask_arithmetic
from tallyformer.evaluation.facts import ask_facts
from tallyformer.inference.llm import LLM

llm = LLM.from_pretrained(sys.argv[1], dtype="float32", device="cpu")
ask = greedy_answers(llm, max_tokens=80, label="questions")
start = time.perf_counter()
found = ask_facts(facts(), ask), ask_arithmetic(held_out_examples(100, 0), ask)
seconds = time.perf_counter() - start
right = sum(answer.right for answers in found for answer in answers)
print(json.dumps({
    "seconds": seconds,
    "right": right,
    "asked": sum(map(len, found)),
    "runner": getattr(llm, "runner_name", "torch"),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pythons = {"before": options.before / ".venv/bin/python", "now": Path(sys.executable)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for number in range(options.rounds):
        for name in list(pythons)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(_asked(pythons[name], options.model))
            print(name, found[name][-1], flush=True)
    seconds = {name: spread([run["seconds"] for run in runs]) for name, runs in found.items()}
    report = {
        "before": _commit(options.before),
        "now": _commit(ROOT),
        "seconds": seconds,
        "last_runs": {name: runs[-1] for name, runs in found.items()},
        "ratio": round(seconds["now"]["median"] / seconds["before"]["median"], 3),
    }
    print(json.dumps(report, indent=2))
    path = options.out or RESULTS / f"{datetime.date.today()}-evaluation-answers.json"
    write_result(path, __doc__.split("\n", 1)[0], torch.device("cpu"), report)


def _asked(python: Path, model: Path) -> dict[str, float]:
    command = [str(python), "-c", PROGRAM, str(model.resolve())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
