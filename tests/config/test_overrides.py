"""`--set`: what takes the place of what, and what an unknown key was meant to be."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tallyformer.cli.options import recipe_options
from tallyformer.config import load_recipe
from tallyformer.errors import ConfigError

RECIPES = sorted(Path("recipes").glob("*.yaml"))
QUICKSTART = Path("recipes/quickstart.yaml")


def example_of_the_help() -> str:
    options = click.command(recipe_options(lambda: None)).params
    text = next(o.help for o in options if isinstance(o, click.Option) and o.name == "overrides")
    found = re.search(r"--set (\S+=\d+)", text or "")
    assert found
    return found[1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_example_of_the_help_works_with_every_recipe(path: Path) -> None:
    assert example_of_the_help() == "pretrain.steps=100"
    recipe = load_recipe(path, [example_of_the_help()])
    assert (recipe.pretrain.steps, recipe.pretrain.epochs) == (100, None)


def test_one_of_two_lengths_takes_the_place_of_the_one_in_the_file() -> None:
    changed = load_recipe(QUICKSTART, ["sft.steps=3", "distill.phases.1.steps=4"])
    assert changed.sft and changed.distill
    assert (changed.sft.steps, changed.sft.epochs) == (3, None)
    assert [phase.steps for phase in changed.distill.phases] == [None, 4]
    back = load_recipe(Path("recipes/real-cpu.yaml"), ["pretrain.epochs=0.5"])
    assert (back.pretrain.steps, back.pretrain.epochs) == (None, 0.5)


def test_two_that_are_asked_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one of epochs and steps; given are: epochs, st"):
        load_recipe(QUICKSTART, ["pretrain.steps=3", "pretrain.epochs=1"])


def test_an_origin_takes_the_place_of_another() -> None:
    changed = load_recipe(QUICKSTART, ["prepare.sources.0.paths=[a.txt]"])
    first = changed.prepare.sources[0]
    assert (first.paths, first.corpus) == (("a.txt",), None)
    changed = load_recipe(QUICKSTART, ["teacher.source=gpt2-medium", "teacher.train=null"])
    assert changed.teacher and changed.teacher.model is None


def test_null_takes_a_key_out_so_that_its_default_holds() -> None:
    changes = ["model.hidden_size=null", "model.num_attention_heads=null", "tokenizer=null"]
    recipe = load_recipe(QUICKSTART, changes)
    assert recipe.model.hidden_size == 512
    assert recipe.tokenizer.kind == "pretrained"


def test_a_key_of_another_mode_names_the_cure_that_works() -> None:
    change = "sft.schedule.name=onecycle"
    with pytest.raises(ConfigError, match=r"final_fraction is for name: .*--set KEY=null"):
        load_recipe(QUICKSTART, [change])
    load_recipe(QUICKSTART, [change, "sft.schedule.final_fraction=null"])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("pretrain.learning_rate", "pretrain.optimizer.learning_rate"),
        ("pretrain.warmup_fraction", "pretrain.schedule.warmup_fraction"),
        ("sft.r", "sft.lora.r"),
        ("hidden_size", "model.hidden_size"),
        ("learning_rate", "pretrain.optimizer.learning_rate"),
        ("distill.temperature", "distill.phases.0.temperature"),
        ("distill.phases.1.learning_rate", "distill.phases.1.optimizer.learning_rate"),
        ("teacher.train.lerning_rate", "teacher.train.optimizer.learning_rate"),
        ("pretrain.optimiser.learning_rate", "optimizer"),
        ("sft.sources.0.promt_field", "prompt_field"),
        ("hiden_size", "model.hidden_size"),
    ],
)
def test_an_unknown_key_is_looked_for_in_every_section(key: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(QUICKSTART, [f"{key}=1"])
    assert f"unknown key; did you mean '{meant}'?" in str(caught.value)


def test_a_key_like_no_other_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"sft\.lora\.xyzzy: unknown key; there are: r, al"):
        load_recipe(QUICKSTART, ["sft.lora.xyzzy=1"])
