"""Whether two checkouts train the same models from one recipe, and measure the same of them.

    python benchmarks/same_results.py BEFORE NOW --what TEXT

BEFORE and NOW are finished runs of one recipe, with the same texts. Compares the files of
vocabulary, shards and weights by their checksums, the curves line by line, the answers, and every
number of the evaluation. Writes benchmarks/results/<date>-same-results.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.manifest import sha256
from tallyformer.evaluation.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
TRAININGS = ("pretrain", "teacher", "distill/phase-1", "distill/phase-2", "sft")
KINDS = ("train", "validation")
WORK = ("*.safetensors", "tokenizer.json", "*.bin", "*.idx", "*.src")
OF_THE_MACHINE = {"tokens_per_second", "mfu", "peak_flops", "memory_mb", "cpu_percent", "seconds"}
OF_THE_CODE = {"check", "fingerprint", "created", "machine", "seconds"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("before", type=Path, help="a finished run's folder")
    parser.add_argument("now", type=Path, help="another's")
    parser.add_argument("--what", required=True, help="how the two were made, in words")
    options = parser.parse_args()
    runs = (options.before, options.now)
    result = {
        "what": " ".join(__doc__.split("\n", 1)[0].split()),
        "command": "python benchmarks/same_results.py BEFORE NOW --what TEXT",
        "made_by": options.what,
        "date": _manifest(options.now, "evaluate")["created"],
        "machine": describe_machine(torch.device("cpu")),
        "files": _files(*runs),
        "curves": {training: _curves(training, *runs) for training in TRAININGS},
        "trainings": {
            name: {
                stage: _training(run, stage) for stage in ("pretrain", "teacher", "distill", "sft")
            }
            for name, run in zip(("before", "now"), runs, strict=True)
        },
        "evaluation": _evaluation(*runs),
    }
    result["training_seconds"] = {
        name: round(sum(one["wall_seconds"] for one in stages.values()), 1)
        for name, stages in result["trainings"].items()
    }
    target = RESULTS / f"{result['date'][:10]}-same-results.json"
    write_json(target, result)
    print(target)


def _files(before: Path, now: Path) -> dict[str, Any]:
    """Files that hold what was made, and which of them differ."""
    names = [
        sorted(
            {path.relative_to(run).as_posix() for kind in WORK for path in run.rglob(kind)}
            - {path.relative_to(run).as_posix() for path in run.glob("*/checkpoints/**/*")}
        )
        for run in (before, now)
    ]
    assert names[0] == names[1], "the runs do not have the same files"
    return {
        "compared": len(names[0]),
        "different": [name for name in names[0] if sha256(before / name) != sha256(now / name)],
    }


def _curves(training: str, before: Path, now: Path) -> dict[str, Any]:
    """Numbers in a training's lines of metrics: how many differ, and by how much at most."""
    lines = [_lines(run / training / "metrics.jsonl") for run in (before, now)]
    assert len(lines[0]) == len(lines[1]), f"{training}: not the same number of lines"
    found = {kind: {"numbers": 0, "different": 0, "relative": 0.0} for kind in KINDS}
    for old, new in zip(*lines, strict=True):
        one = found[old["kind"]]
        for name in old.keys() - OF_THE_MACHINE:
            if isinstance(old[name], float):
                one["numbers"] += 1
                one["different"] += old[name] != new[name]
                one["relative"] = max(one["relative"], _relative(old[name], new[name]))
    return found


def _evaluation(before: Path, now: Path) -> dict[str, Any]:
    """Leaves of both results that differ in more than what names the code or the machine."""
    pairs = list(_leaves(*(_json(run / "evaluate" / "results.json") for run in (before, now))))
    numbers = {place: pair for place, *pair in pairs if pair[0] != pair[1]}
    perplexities = {p: both for p, both in numbers.items() if p.endswith("/perplexity")}
    return {
        "compared": len(pairs),
        "different": len(numbers),
        "different_that_are_not_losses": [
            place for place, both in numbers.items() if not isinstance(both[0], float)
        ],
        "perplexities": {
            place: {"before": both[0], "now": both[1]} for place, both in perplexities.items()
        },
        "largest_relative_difference_of_a_perplexity": max(
            (_relative(*both) for both in perplexities.values()), default=0.0
        ),
    }


def _leaves(before: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict):
        assert before.keys() == now.keys(), place
        for key in before.keys() - OF_THE_CODE:
            yield from _leaves(before[key], now[key], f"{place}/{key}")
    elif isinstance(before, list):
        assert len(before) == len(now), place
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from _leaves(*pair, f"{place}/{number}")
    else:
        yield place, before, now


def _training(run: Path, stage: str) -> dict[str, Any]:
    metrics = _manifest(run, stage)["metrics"]
    kept = ("steps", "tokens", "wall_seconds", "validation_perplexity", "peak_memory_mb")
    return {name: metrics[name] for name in kept}


def _relative(before: float, now: float) -> float:
    return abs(now - before) / abs(before) if before else float(now != before)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _manifest(run: Path, stage: str) -> dict[str, Any]:
    return _json(run / stage / "manifest.json")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
