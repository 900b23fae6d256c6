"""What fine-tuning does to text and to answers, under several settings, from one pretrained model.

    tallyformer run --recipe recipes/quickstart.yaml --out RUN
    python benchmarks/fine_tuning.py RUN --recipe recipes/quickstart.yaml --work FOLDER [NAME ...]

Copies the finished run's folder for each setting (hard links), without what comes after
distillation, and runs `sft`, `merge` and `evaluate` there with the setting's overrides. Writes
benchmarks/results/<date>-fine-tuning-<recipe>.json; settings that FOLDER holds already are taken as
they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.manifest import read_manifest

RESULTS = Path(__file__).parent / "results"
CONTROL_TOKENS = ("sft.lora.modules_to_save=[]", "sft.lora.train_control_tokens=true")
SETTINGS: dict[str, tuple[str, ...]] = {
    "the recipe's own": (),
    "no replay": ("sft.replay=0",),
    "no replay, 2e-3": ("sft.replay=0", "sft.optimizer.learning_rate=0.002"),
    "replay, 2e-3": ("sft.optimizer.learning_rate=0.002",),
    "replay, 1e-3": ("sft.optimizer.learning_rate=0.001",),
    "control tokens' rows, no replay, 2e-3": (
        *CONTROL_TOKENS,
        "sft.replay=0",
        "sft.optimizer.learning_rate=0.002",
    ),
    "control tokens' rows, replay": CONTROL_TOKENS,
}
AFTER_DISTILLATION = ("sft", "merge", "evaluate", "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="a finished run of the recipe")
    parser.add_argument("names", nargs="*", metavar="NAME", help="settings; by default all")
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="gets a run a setting")
    parser.add_argument("--set", action="append", default=[], help="for all settings")
    options = parser.parse_intermixed_args()
    rows = {}
    for name in options.names or SETTINGS:
        folder = options.work / f"setting-{list(SETTINGS).index(name)}"
        overrides = (*options.set, *SETTINGS[name])
        _tune(options.run, folder, options.recipe, overrides)
        rows[name] = {"overrides": overrides, **_found(folder)}
        print(name, json.dumps(rows[name]), flush=True)
    made = read_manifest(options.run / "pretrain", made_by="tallyformer run")
    found = json.loads((folder / "evaluate" / "results.json").read_text(encoding="utf-8"))
    evaluated = read_manifest(folder / "evaluate", made_by="tallyformer run")
    target = RESULTS / f"{evaluated.created[:10]}-fine-tuning-{options.recipe.stem}.json"
    result = {
        "what": " ".join(__doc__.split("\n", 1)[0].split()),
        "command": f"python benchmarks/fine_tuning.py RUN --recipe recipes/{options.recipe.name}",
        "date": evaluated.created,
        "machine": found["machine"],
        "versions": dict(made.versions),
        "settings": rows,
    }
    write_json(target, result)
    print(target)


def _tune(run: Path, folder: Path, recipe: Path, overrides: tuple[str, ...]) -> None:
    if not folder.is_dir():
        leave_out = shutil.ignore_patterns(*AFTER_DISTILLATION)
        top = str(run)
        shutil.copytree(
            run,
            folder,
            copy_function=os.link,
            ignore=lambda at, names: leave_out(at, names) if at == top else set(),
        )
    sets = [part for override in overrides for part in ("--set", override)]
    for stage in ("sft", "merge", "evaluate"):
        command = [sys.executable, "-m", "tallyformer.cli.main", stage, "--resume"]
        subprocess.run([*command, "--recipe", recipe, "--out", folder, *sets], check=True)


def _found(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "evaluate" / "results.json").read_text(encoding="utf-8"))
    text: dict[str, dict[str, float]] = {}
    for row in found["perplexity"]:
        if row["model"] in ("distill", "merge"):
            text.setdefault(row["domain"], {})[row["model"]] = row["perplexity"]
    tuned = read_manifest(folder / "sft", made_by="tallyformer sft").metrics
    return {
        "text_perplexity": {
            domain: {
                "before": of["distill"],
                "after": of["merge"],
                "ratio": of["merge"] / of["distill"],
            }
            for domain, of in text.items()
        },
        "response_perplexity": {row["when"]: row["perplexity"] for row in found["responses"]},
        **{
            part: {
                "right": sum(a["right"] for a in found[part]["answers"]),
                "asked": len(found[part]["answers"]),
            }
            for part in ("facts", "arithmetic")
            if part in found
        },
        **{name: tuned[name] for name in ("steps", "tokens", "wall_seconds", "trained_parameters")},
    }


if __name__ == "__main__":
    main()
