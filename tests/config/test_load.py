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
    assert recipe.distill.weights == {"refinedweb": 0.58, "pes2o": 0.16, "slimpajama": 0.26}
    assert [s.weight for s in recipe.prepare.sources] == [0.60, 0.15, 0.25]
    # Bytes a token of each source; a tenth is held out.
    lengths = zip(recipe.prepare.sources, (4.5, 4.4, 4.2), strict=True)
    tokens = sum((s.max_bytes or 0) / each * 0.9 for s, each in lengths)
    assert tokens == pytest.approx(1.3e9, rel=0.01)
    assert recipe.pretrain.epochs == 10
    # Sixths of 0.7 billion tokens, 19 and 11 of them.
    passes = [p.epochs for p in recipe.distill.phases]
    assert passes == pytest.approx([19 / 6 * 0.7 / 1.3, 11 / 6 * 0.7 / 1.3], rel=0.02)
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
        ({"prepare": {"sources": []}}, "an item at least"),
        ({"prepare": {"sources": [{"name": "a"}]}}, "exactly one of paths, dataset and corpus"),
        ({"pretrain": {"steps": 1, "weights": {"primr": 1}}}, "there are: primer"),
        ({"pretrain": {"steps": 1, "weights": {"primer": -1}}}, "0 or more"),
        ({"distill": {"phases": [{"steps": 1}]}}, "distill needs a teacher section"),
        ({"teacher": {"source": "gpt2"}}, "teacher is for distill, and the recipe has no distill"),
        ({"teacher": {}}, "source"),
        ({"pretrain": {"steps": 1, "optimizer": {"betas": [0.9, 1]}}}, "optimizer.betas.1"),
        ({"pretrain": {"steps": 1, "optimizer": {"betas": [-0.1, 0.9]}}}, "optimizer.betas.0"),
    ],
)
def test_each_mistake_names_its_cause(changes: dict[str, Any], expected: str) -> None:
    assert expected in problem(small(**changes))


@pytest.mark.parametrize(("of_prepare", "of_sft"), [(0.05, 0.02), (0.05, 0.2)])
def test_a_corpus_in_two_stages_is_held_out_alike_in_both(of_prepare: float, of_sft: float) -> None:
    questions = [{"name": "q", "corpus": "questions"}]
    tree = small(
        prepare={"validation_fraction": of_prepare, "sources": questions},
        sft={"steps": 1, "validation_fraction": of_sft, "sources": questions},
    )
    assert "both read the corpus questions" in problem(tree)
    tree["sft"]["sources"] = [{"name": "q", "corpus": "worked-examples"}]
    assert check_recipe(tree, "x").sft is not None


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
    "override",
    [
        "pretrain.steps",
        "=3",
        "prepare.sources.5.name=x",
        "prepare.sources.².name=x",
        "name.first=x",
        "seed=[1",
        "a..b=1",
        f"prepare.sources.{'9' * 5000}.name=x",
        "pretrain={steps: 1, steps: 2}",
    ],
)
def test_a_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_recipe(write(tmp_path, small()), [override])


@pytest.mark.parametrize(
    ("prompts", "change", "expected"),
    [
        ("[a]", "evaluate.prompts.0.x=1", "evaluate.prompts.0 is a value, not a section"),
        ("[a]", "evaluate.prompts.1=b", "evaluate.prompts.1 must end in a number below 1"),
        ("[]", "evaluate.prompts.0=b", "evaluate.prompts is an empty list. Give it whole"),
    ],
)
def test_an_override_that_leads_nowhere_in_a_list_says_why(
    tmp_path: Path, prompts: str, change: str, expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(write(tmp_path, small()), [f"evaluate.prompts={prompts}", change])
    assert expected in str(caught.value)


def test_an_override_changes_one_of_two_sections_that_share_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: small\n"
        "prepare: {sources: [{name: primer, corpus: primer}]}\n"
        "pretrain: &length {steps: 3}\n"
        "teacher: {model: {}, train: *length}\n"
        "distill: {phases: [*length]}\n",
        encoding="utf-8",
    )
    recipe = load_recipe(path, ["pretrain.steps=7"])
    assert recipe.teacher and recipe.teacher.train and recipe.distill
    assert recipe.pretrain.steps == 7
    assert recipe.teacher.train.steps == recipe.distill.phases[0].steps == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pretrain.optimizer.learning_rate", ".inf"),
        ("pretrain.optimizer.learning_rate", "inf"),
        ("pretrain.schedule.final_div", "1e999"),
        ("pretrain.z_loss", ".nan"),
        ("pretrain.epochs", "-.inf"),
        ("pretrain.weights.primer", ".nan"),
        ("model.norm_eps", ".inf"),
        ("prepare.sources.0.weight", ".inf"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, key: str, value: str) -> None:
    changes = ["pretrain.steps=null", "pretrain.epochs=1", f"{key}={value}"]
    with pytest.raises(ConfigError, match=rf"{key}: must be a finite number"):
        load_recipe(write(tmp_path, small()), changes)


def test_a_key_that_is_given_twice_is_refused_and_both_places_are_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: a\npretrain:\n  steps: 1\n  micro_batch: 2\n  steps: 3\n\nname: b\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert "pretrain.steps is given twice, on lines 3 and 5" in str(caught.value)
    assert "name is given twice, on lines 1 and 7" in str(caught.value)


def test_a_missing_recipe_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such recipe.*--recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "just words", "", "a: &a [*a]"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_a_checked_recipe_dumps_to_an_equal_recipe() -> None:
    recipe = load_recipe(Path("recipes/quickstart.yaml"))
    assert check_recipe(recipe.model_dump(mode="json"), "dump") == recipe


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretrain.steps=true", "pretrain.steps: .*true is not a number"),
        ("seed=false", "seed: .*false is not a number"),
        ("pretrain.optimizer.learning_rate=true", "learning_rate: .*true is not a number"),
        ('data_root="a\\0b"', "data_root: .*no file or path can hold"),
        ('description="\\uD800"', "description: .*no file or path can hold"),
        ("pretrain.micro_batch=99999999999999999999", "micro_batch: .*1000000"),
        ("pretrain.epochs=1e300", "epochs: .*1000000"),
        ("pretrain.epochs=1e-300", "epochs: .*0.000001"),
    ],
)
def test_what_no_run_can_use_is_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe(Path(__file__).parents[2] / "recipes" / "quickstart.yaml", [override])


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_a_prompt_without_words_is_refused(empty: str) -> None:
    said = problem(small(evaluate={"prompts": ["What is a bond?", empty]}))
    assert "evaluate: prompts.1 is empty. Write a question, or take it out" in said
