"""`config`, `--dry-run`, and what stage commands say about recipes and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyformer.config import check_recipe, load_recipe, recipe_as_yaml


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["quickstart", "tally-51m"])
def test_the_full_recipe_is_a_recipe_that_means_the_same(name: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / f"{name}.yaml"
    recipe = load_recipe(path)
    text = recipe_as_yaml(recipe)
    assert check_recipe(yaml.safe_load(text), "shown") == recipe
    assert yaml.safe_load(text)["pretrain"]["optimizer"]["betas"] == [0.9, 0.95]


def test_config_show_prints_every_value_and_overrides(tallyformer: Any, recipe: Path) -> None:
    shown = tallyformer("config", "show", "--recipe", recipe, "--set", "pretrain.log_every=9")
    values = yaml.safe_load(shown.stdout)
    assert values["pretrain"]["log_every"] == 9
    assert values["pretrain"]["optimizer"]["learning_rate"] == 8e-4
    assert values["model"]["max_position_embeddings"] == 32


def test_every_problem_of_a_recipe_is_reported_at_once(tallyformer: Any, recipe: Path) -> None:
    recipe.write_text(
        recipe.read_text().replace("epochs:", "epcohs:").replace("name: tiny", "nmae: x")
    )
    done = tallyformer("config", "validate", "--recipe", recipe)
    assert done.returncode == 2
    assert "did you mean 'epochs'" in done.stderr and "did you mean 'name'" in done.stderr


def test_a_recipe_that_is_not_there(tallyformer: Any, tmp_path: Path) -> None:
    done = tallyformer("run", "--recipe", tmp_path / "no.yaml")
    assert done.returncode == 2 and "no such recipe" in done.stderr


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(
    tallyformer: Any, recipe: Path
) -> None:
    before = _files(recipe.parent)
    done = tallyformer("run", "--recipe", recipe, "--dry-run", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    stages = [line.split()[0] for line in done.stdout.splitlines()[:-2]]
    assert stages == ["tokenizer", "prepare", "pretrain", "evaluate", "export"]
    assert "would run: runs/tiny/model" in done.stdout
    assert _files(recipe.parent) == before and not (recipe.parent / "runs").exists()


def test_a_dry_run_names_every_missing_input(tallyformer: Any, recipe: Path) -> None:
    for text in (recipe.parent / "texts").iterdir():
        text.write_text("")
    done = tallyformer("run", "--recipe", recipe, "--dry-run")
    assert done.returncode == 3
    assert "00.txt is empty" in done.stderr and "01.txt is empty" in done.stderr
    done = tallyformer(
        "run", "--recipe", recipe, "--dry-run", "--set", "prepare.sources.0.paths=[no/*.txt]"
    )
    assert done.returncode == 3 and "no file matches 'no/*.txt'" in done.stderr


def test_a_stage_says_which_stage_it_needs(tallyformer: Any, recipe: Path) -> None:
    out = recipe.parent / "out"
    done = tallyformer("pretrain", "--recipe", recipe, "--out", out, "--dry-run")
    assert done.returncode == 3
    assert "pretrain needs tokenizer" in done.stderr
    assert f"tallyformer tokenizer --recipe {recipe} --out {out}" in done.stderr


@pytest.mark.parametrize("stage", ["teacher", "distill", "sft", "merge"])
def test_a_stage_that_the_recipe_lacks_is_a_usage_error(
    tallyformer: Any, recipe: Path, stage: str
) -> None:
    done = tallyformer(stage, "--recipe", recipe)
    assert done.returncode == 2
    assert f"nothing for `{stage}` to do" in done.stderr


def test_a_dry_run_names_what_the_hub_does_not_deliver(tallyformer: Any, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    flagship = Path(__file__).parents[2] / "recipes" / "tally-51m.yaml"
    # Nobody listens on port 9, and the cache is empty.
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = tallyformer("run", "--recipe", flagship, "--dry-run", cwd=tmp_path, env=env)
    assert done.returncode == 3
    assert "6 inputs cannot be used" in done.stderr
    names = ["tokenizer.source: gpt2", "teacher.source: gpt2-medium"]
    names += ["tiiuae/falcon-refinedweb", "allenai/peS2o", "SlimPajama", "gbharti/finance-alpaca"]
    assert all(name in done.stderr for name in names)
    assert done.stderr.count("the hub does not answer") == 6
    assert not (tmp_path / "runs").exists()


def test_a_plan_says_of_a_hub_that_does_not_answer_what_the_recipe_says(
    tallyformer: Any, tmp_path: Path
) -> None:
    flagship = Path(__file__).parents[2] / "recipes" / "tally-51m.yaml"
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = tallyformer("plan", "--recipe", flagship, "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["vocabulary"] == 50_260
    assert sum(source["tokens"] for source in plan["sources"]) == pytest.approx(1.3e9, rel=0.02)
    pretrain = plan["trainings"][0]
    assert pretrain["parameters"] == 50_915_840
    assert pretrain["tokens"] == pytest.approx(13e9, rel=0.02)
    assert plan["by_formula"]["pretrain"]["seconds"] > 0 and not plan["measured"]
    assert plan["trainings"][-1]["steps"] is None
    assert any("50,260 ids are assumed" in note for note in plan["notes"])
    assert any("source 'pes2o': the hub does not answer" in note for note in plan["notes"])


def test_options_of_a_rehearsal_that_is_left_out_are_refused(
    tallyformer: Any, recipe: Path
) -> None:
    done = tallyformer("plan", "--recipe", recipe, "--no-probe", "--probe-seconds", 5)
    assert done.returncode == 2 and "--no-probe leaves it out" in done.stderr
