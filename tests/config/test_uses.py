"""A key that would do nothing is refused where it is given, and left out where it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyformer.config import Recipe, check_recipe, load_recipe, recipe_as_yaml
from tallyformer.config.base import Section
from tallyformer.config.keys import section_at
from tallyformer.errors import ConfigError

RECIPES = sorted(Path("recipes").glob("*.yaml"))
PRIMER = {"name": "primer", "corpus": "primer"}
PAIRS = {"name": "pairs", "paths": ["pairs.jsonl"]}
TEACHER = {"source": "gpt2"}


def recipe_of(**changes: Any) -> dict[str, Any]:
    tree = {"name": "small", "prepare": {"sources": [PRIMER]}, "pretrain": {"steps": 3}}
    return {**tree, **changes}


def scheduled(**schedule: Any) -> dict[str, Any]:
    return recipe_of(pretrain={"steps": 3, "schedule": schedule})


def texts(**source: Any) -> dict[str, Any]:
    return recipe_of(prepare={"sources": [{"name": "texts", **source}]})


def tuned(**source: Any) -> dict[str, Any]:
    return recipe_of(sft={"steps": 3, "sources": [{"name": "pairs", **source}]})


def distilled(teacher: dict[str, Any], **distill: Any) -> dict[str, Any]:
    return recipe_of(teacher=teacher, distill={"phases": [{"steps": 1}], **distill})


IGNORED = [
    (
        scheduled(name="onecycle", final_fraction=0.1),
        "final_fraction is for name: cosine or linear",
    ),
    (scheduled(name="constant", final_fraction=0.0), "final_fraction is for name: cosine"),
    (scheduled(name="cosine", decay_fraction=0.3), "decay_fraction is for name: wsd"),
    (scheduled(div=20.0), "div is for name: onecycle"),
    (scheduled(name="wsd", final_div=2), "final_div is for name: onecycle"),
    (recipe_of(tokenizer={"vocab_size": 8192}), "vocab_size is for kind: train"),
    (
        recipe_of(tokenizer={"kind": "pretrained", "train_bytes": 9}),
        "train_bytes is for kind: train",
    ),
    (recipe_of(tokenizer={"kind": "train", "source": "gpt2"}), "source is for kind: pretrained"),
    (recipe_of(tokenizer={"kind": "train", "revision": "x"}), "revision is for kind: pretrained"),
    (distilled(TEACHER, cache_top_k=64), "cache_top_k is for cache: top-k"),
    (distilled(TEACHER, cache="off", cache_folder="x"), "cache_folder is for cache: top-k"),
    (distilled({**TEACHER, "train": {"steps": 1}}), "train is for model"),
    (
        distilled({"model": {}, "train": {"steps": 1}, "revision": "x"}),
        "revision is for source",
    ),
    (texts(corpus="primer", examples=2000), "examples is for corpus: worked-examples"),
    (texts(corpus="primer", text_field="text"), "text_field is for a dataset, or paths"),
    (texts(paths=["a/*.txt", "b.md"], text_field="x"), "text_field is for a dataset, or paths"),
    (texts(paths=["*.jsonl"], dataset_split="train"), "dataset_split is for dataset"),
    (texts(paths=["*.jsonl"], dataset_config="x"), "dataset_config is for dataset"),
    (texts(paths=["*.jsonl"], data_files=["x.jsonl"]), "data_files is for dataset"),
    (texts(corpus="primer", revision="x"), "revision is for dataset"),
    (texts(dataset="x", examples=3), "examples is for corpus: worked-examples"),
    (tuned(corpus="questions", prompt_field="prompt"), "prompt_field is for paths or dataset"),
    (tuned(corpus="questions", response_field="a"), "response_field is for paths or dataset"),
    (tuned(corpus="questions", context_fields=["a"]), "context_fields is for paths or dataset"),
    (
        recipe_of(prepare={"sources": [PRIMER], "on_invalid_utf8": "drop"}),
        "on_invalid_utf8 is for sources with paths or dataset",
    ),
    (recipe_of(evaluate={"pairs": 500}), "evaluate.pairs is for a recipe with an sft section"),
]


@pytest.mark.parametrize(("tree", "expected"), IGNORED, ids=[words for _, words in IGNORED])
def test_a_key_that_would_do_nothing_is_refused_even_with_its_default(
    tree: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_recipe(tree, "r.yaml")
    assert expected in str(caught.value)
    assert "Remove it" in str(caught.value)


USED = [
    scheduled(name="wsd", decay_fraction=0.3, final_fraction=0.1),
    scheduled(name="onecycle", div=10, final_div=100),
    recipe_of(tokenizer={"kind": "train", "vocab_size": 300, "train_bytes": 9}),
    recipe_of(tokenizer={"source": "gpt2", "revision": "x"}),
    distilled(TEACHER, cache="top-k", cache_top_k=8, cache_folder="x"),
    texts(corpus="worked-examples", examples=3),
    texts(paths=["a.txt", "b/*"], text_field="x"),
    tuned(**{**PAIRS, "context_fields": ["c"]}),
    {**tuned(**PAIRS), "evaluate": {"pairs": 3}},
    recipe_of(tokenizer={"kind": "train", "revision": None}),
]


@pytest.mark.parametrize("tree", USED)
def test_a_key_that_does_something_is_taken(tree: dict[str, Any]) -> None:
    check_recipe(tree, "r.yaml")


def below(section: type[Section], *path: str) -> Iterator[tuple[type[Section], tuple[str, ...]]]:
    yield section, path
    for name in section.model_fields:
        inner = section_at([*path, name])
        if inner:
            yield from below(inner, *path, name)


def test_the_conditions_name_keys_that_exist() -> None:
    for section, path in below(Recipe):
        for key in section.uses:
            *parents, last = key.split(".")
            of = section_at([*path, *parents])
            assert of and last in of.model_fields
        for group in section.one_of:
            assert set(group) <= set(section.model_fields)


@pytest.mark.parametrize("tree", USED)
def test_a_recipe_with_every_default_filled_in_still_loads(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    recipe = check_recipe(tree, "r.yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_as_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe_as_yaml(load_recipe(path)) == recipe_as_yaml(recipe)


def test_what_does_nothing_is_not_written() -> None:
    written = yaml.safe_load(recipe_as_yaml(check_recipe(recipe_of(), "r.yaml")))
    assert set(written["pretrain"]["schedule"]) == {"name", "warmup_fraction", "final_fraction"}
    assert set(written["tokenizer"]) == {"kind", "source"}
    assert "pairs" not in written["evaluate"] and "preset" not in written["model"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_from_what_a_run_writes(path: Path, tmp_path: Path) -> None:
    recipe, written = load_recipe(path), tmp_path / "recipe.yaml"
    written.write_text(recipe_as_yaml(recipe), encoding="utf-8")
    assert load_recipe(written) == recipe


def test_a_preset_that_fills_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_as_yaml(check_recipe(recipe_of(), "r.yaml")), encoding="utf-8")
    with pytest.raises(ConfigError, match="model: preset 'tally-51m-llama' fills the keys that"):
        load_recipe(path, ["model.preset=tally-51m-llama"])
    changed = load_recipe(path, ["model.preset=tally-51m-llama", "model.mlp_type=null"])
    assert changed.model.mlp_type == "swiglu"
