"""What a finished run of a recipe reached, as a dated result.

    tallyformer run --recipe recipes/real-cpu.yaml --set data_root=DATA --out RUN
    python benchmarks/run_results.py RUN [--control OTHER] [--measured TEXT]

OTHER is a run of the same recipe with `alpha: 0.0` in each phase of `distill`, from the same
pretrained model: as many more steps without a teacher.

Collects what the run's own manifests and evaluation recorded: nothing is measured again. Writes
benchmarks/results/<date>-<recipe>.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.manifest import Manifest, read_manifest
from tallyformer.stages.run import STAGES

RESULTS = Path(__file__).parent / "results"
OF_A_TRAINING = (
    "steps",
    "tokens",
    "wall_seconds",
    "tokens_per_second",
    "precision",
    "compiled",
    "parameters",
    "trained_parameters",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "best_phase",
    "validation_perplexity_before",
    "validation_perplexity_after_phases",
    "validation_perplexity",
    "validation_bits_per_byte",
    "response_perplexity_before",
    "response_perplexity",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--control", type=Path, help="a run with alpha 0 in all phases of distill")
    parser.add_argument("--measured", help="what was measured from outside, in words")
    options = parser.parse_args()
    run = options.run
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    found = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    stages = {
        stage: read_manifest(folder, made_by="tallyformer run")
        for stage in STAGES
        if (folder := run / stage).joinpath("manifest.json").is_file()
    }
    result = {
        "what": f"one run of the recipe {recipe['name']}: {recipe['description'].strip()}",
        "command": f"tallyformer run --recipe recipes/{recipe['name']}.yaml",
        "date": stages["evaluate"].created,
        **({"measured_from_outside": options.measured} if options.measured else {}),
        "machine": found["machine"],
        "versions": dict(stages["pretrain"].versions),
        "seed": recipe["seed"],
        "trainings": {name: trained for name, m in stages.items() if (trained := _training(m))},
        **({"distill_without_teacher": _control(options.control)} if options.control else {}),
        "perplexity_by_domain": _by_domain(found["perplexity"]),
        "response_perplexity": {
            one["when"]: {"perplexity": one["perplexity"], "tokens": one["tokens"]}
            for one in found.get("responses", ())
        },
        **{
            part: _share(found[part])
            for part in ("facts", "manners", "arithmetic")
            if part in found
        },
        "samples": found.get("samples", {}).get("answers", []),
    }
    target = RESULTS / f"{stages['evaluate'].created[:10]}-{recipe['name']}.json"
    write_json(target, result)
    print(target)


def _training(manifest: Manifest) -> dict[str, Any]:
    if "wall_seconds" not in manifest.metrics:
        return {}
    return {name: manifest.metrics[name] for name in OF_A_TRAINING if name in manifest.metrics}


def _control(run: Path) -> dict[str, Any]:
    manifest = read_manifest(run / "distill", made_by="tallyformer distill")
    alphas = {phase["alpha"] for phase in manifest.config["distill"]["phases"]}
    assert alphas == {0.0}, f"{run}: its phases have alpha {alphas}, not 0"
    return _training(manifest)


def _by_domain(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Domain -> model -> perplexity and bits per byte."""
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        values = {name: row[name] for name in ("perplexity", "bits_per_byte", "tokens")}
        table.setdefault(row["domain"], {})[row["model"]] = values
    return table


def _share(asked: dict[str, Any]) -> dict[str, Any]:
    answers = asked["answers"]
    right = sum(bool(answer["right"]) for answer in answers)
    return {"right": right, "asked": len(answers), "share": right / len(answers)}


if __name__ == "__main__":
    main()
