"""Recipes: every problem at once, named, with its nearest neighbour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyformer.config import check_recipe, load_recipe
from tallyformer.errors import ConfigError, UsageError

RECIPES = sorted(Path("recipes").glob("*.yaml"))


def small(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "prepare": {"sources": [{"name": "primer", "corpus": "primer"}]},
        "pretrain": {"steps": 3},
        **changes,
    }


def write(folder: Path, tree: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def problem(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_recipe(tree, "r.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_there_are_the_promised_recipes() -> None:
    assert {"quickstart", "tally-51m", "real-cpu", "real-gpu"} <= {p.stem for p in RECIPES}


def test_the_flagship_recipe_has_the_specified_numbers() -> None:
    recipe = load_recipe(Path("recipes/tally-51m.yaml"))
    assert recipe.pretrain.micro_batch * recipe.pretrain.gradient_accumulation == 192
    assert recipe.pretrain.optimizer.learning_rate == 8e-4
    assert recipe.pretrain.optimizer.betas == (0.9, 0.95)
    assert recipe.distill is not None
    assert [(p.temperature, p.alpha) for p in recipe.distill.phases] == [(2.5, 0.7), (3.0, 0.4)]
    assert [p.optimizer.learning_rate for p in recipe.distill.phases] == [2.5e-4, 2e-4]
    assert recipe.sft is not None
    assert (recipe.sft.lora.r, recipe.sft.lora.alpha, recipe.sft.lora.dropout) == (16, 32, 0.05)


def test_all_problems_are_reported_at_once_with_their_nearest_key() -> None:
    tree = small(prepear={}, model={"hiden_size": 4})
    tree["pretrain"] = {"steps": 3, "optimizer": {"learning_rat": 1}}
    message = problem(tree)
    assert "r.yaml: 3 problems" in message
    assert "prepear: unknown key; did you mean 'prepare'?" in message
    assert "model.hiden_size: unknown key; did you mean 'hidden_size'?" in message
    assert "pretrain.optimizer.learning_rat: unknown key" in message


def test_an_unknown_key_inside_a_list_finds_its_neighbour() -> None:
    tree = small(prepare={"sources": [{"name": "a", "corpus": "primer", "wieght": 2}]})
    assert "prepare.sources.0.wieght: unknown key; did you mean 'weight'?" in problem(tree)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pretrain": {"steps": 1, "epochs": 1}}, "exactly one of epochs and steps"),
        ({"pretrain": {}}, "exactly one of epochs and steps"),
        ({"pretrain": {"steps": 0}}, "pretrain.steps"),
        ({"name": "../x"}, "name"),
        ({"model": {"hidden_size": 100}}, "num_attention_heads"),
        ({"model": {"hidden_size": 24, "num_attention_heads": 8}}, "even"),
        ({"model": {"preset": "tally-1b"}}, "tally-51m-llama"),
        ({"prepare": {"sources": []}}, "at least 1 item"),
        ({"prepare": {"sources": [{"name": "a"}]}}, "exactly one of paths, dataset, corpus"),
        ({"pretrain": {"steps": 1, "weights": {"primr": 1}}}, "there are: primer"),
        ({"pretrain": {"steps": 1, "weights": {"primer": -1}}}, "0 or more"),
        ({"distill": {"phases": [{"steps": 1}]}}, "teacher"),
        ({"teacher": {}}, "source"),
    ],
)
def test_each_mistake_names_its_cause(changes: dict[str, Any], expected: str) -> None:
    assert expected in problem(small(**changes))


def test_a_preset_fills_what_the_recipe_leaves_out() -> None:
    model = check_recipe(
        small(model={"preset": "tally-51m-llama", "num_hidden_layers": 2}), "x"
    ).model
    assert (model.mlp_type, model.rope_layout, model.num_hidden_layers) == ("swiglu", "half", 2)


def test_set_changes_values_in_sections_and_lists(tmp_path: Path) -> None:
    path = write(tmp_path, small())
    recipe = load_recipe(
        path,
        [
            "pretrain.steps=7",
            "pretrain.optimizer.learning_rate=8e-4",
            "prepare.sources.0.name=first",
            "model.hidden_size=64",
            "model.num_attention_heads=2",
        ],
    )
    assert recipe.pretrain.steps == 7
    assert recipe.pretrain.optimizer.learning_rate == 8e-4
    assert recipe.prepare.sources[0].name == "first"
    assert recipe.model.hidden_size == 64


@pytest.mark.parametrize(
    "override", ["pretrain.steps", "=3", "prepare.sources.5.name=x", "name.first=x", "seed=[1"]
)
def test_a_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_recipe(write(tmp_path, small()), [override])


def test_a_missing_recipe_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such recipe.*--recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_a_checked_recipe_dumps_to_an_equal_recipe() -> None:
    recipe = load_recipe(Path("recipes/quickstart.yaml"))
    assert check_recipe(recipe.model_dump(mode="json"), "dump") == recipe
