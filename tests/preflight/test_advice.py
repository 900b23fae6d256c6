"""What a run is too small for is said before it begins, with what would be enough."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe, load_recipe
from tallyformer.config.training import PretrainSection
from tallyformer.corpus.primer import articles
from tallyformer.corpus.questions import facts
from tallyformer.preflight.advice import (
    LEAST_PAIRS,
    LEAST_STEPS,
    RunSize,
    TrainingSize,
    advice_on,
)
from tallyformer.preflight.run_size import advice_before, size_of
from tallyformer.stages.run import stages_of

ENOUGH = RunSize(
    parameters=1_000_000,
    learnt_ids=1024,
    tokens=100_000,
    validation_tokens=10_000,
    pairs=900,
    held_out_pairs=100,
)
RECIPES = Path(__file__).parents[2] / "recipes"


def _texts(size: RunSize) -> list[str]:
    return [advice.text for advice in advice_on(size)]


def _own(root: Path, files: int, pairs: int, **sft: Any) -> Recipe:
    """Some files of 60 words and pairs of ten."""
    (root / "texts").mkdir(parents=True)
    words = ["the", "price", "of", "a", "bond", "falls", "when", "its", "yield", "rises"]
    for number in range(files):
        text = " ".join(words[(number + i) % len(words)] for i in range(60))
        (root / "texts" / f"{number}.txt").write_text(f"{number} {text}", encoding="utf-8")
    rows = [{"prompt": f"What is {i}?", "response": f"{i} is a number."} for i in range(pairs)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "name": "own",
        "data_root": str(root),
        "tokenizer": {"kind": "train", "vocab_size": 4096},
        "prepare": {"min_chars": 1, "sources": [{"name": "texts", "paths": ["texts/*.txt"]}]},
        "pretrain": {"epochs": 2},
        "sft": {"epochs": 3, "sources": [{"name": "pairs", "paths": ["pairs.jsonl"]}], **sft},
    }
    return check_recipe(tree, "own.yaml")


def test_a_run_that_is_large_enough_gets_no_advice() -> None:
    assert _texts(ENOUGH) == []
    assert _texts(RunSize(parameters=10**9)) == []


def test_the_quickstart_gets_no_advice(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "quickstart.yaml")
    assert advice_before(recipe, RunFolder(tmp_path), stages_of(recipe)) == []


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        ({"tokens": 12_000}, "about 12,000 tokens to train on", "At least 20,000 tokens"),
        ({"parameters": 10_000_000}, "10,000,000 parameters", "At least 200,000 tokens (0.7 MB"),
        ({"validation_tokens": 500}, "about 500 tokens of text are held out", "0.03 would hold"),
        ({"learnt_ids": 50_000}, "50,000 ids are learnt", "tokenizer.vocab_size=7680 would fit"),
        ({"pairs": 150}, "150 pairs are few", f"At least {LEAST_PAIRS}"),
        (
            {"held_out_pairs": 3, "pairs": 300},
            "3 pairs are held out, too few to tell",
            "sft.validation_fraction=0.08 would hold out 20 pairs, or 200 pairs in all",
        ),
        ({"held_out_pairs": 1, "pairs": 9}, "1 pairs are held out", "200 pairs in all would do"),
    ],
)
def test_whatever_is_too_small_is_said_with_what_would_be_enough(
    changes: dict[str, Any], said: str, fix: str
) -> None:
    found = [text for text in _texts(replace(ENOUGH, **changes)) if said in text]
    assert len(found) == 1 and fix in found[0]


def test_too_few_steps_are_said_with_the_epochs_or_steps_that_are_enough() -> None:
    def text(count: int, **section: Any) -> list[str]:
        training = TrainingSize("pretrain", "pretrain", PretrainSection(**section), count)
        return _texts(replace(ENOUGH, trainings=[training]))

    assert text(LEAST_STEPS, epochs=1) == []
    [few] = text(6, epochs=2)
    assert "about 6 steps" in few and "pretrain.epochs=17 " in few
    [few] = text(10, steps=10)
    assert f"pretrain.steps={LEAST_STEPS} or more" in few


def test_the_advised_epochs_do_give_enough_steps(tmp_path: Path) -> None:
    recipe = _own(tmp_path / "data", 60, 60, micro_batch=2, gradient_accumulation=1)
    run = RunFolder(tmp_path / "run")
    [before] = [t for t in size_of(recipe, run).trainings if t.stage == "sft"]
    [advice] = [a.text for a in advice_before(recipe, run, ["sft"]) if "sft trains" in a.text]
    epochs = int(advice.split("sft.epochs=")[1].split()[0])
    assert recipe.sft is not None
    more = recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"epochs": epochs})})
    [after] = [t for t in size_of(more, run).trainings if t.stage == "sft"]
    assert before.steps < LEAST_STEPS <= after.steps


def test_thirty_files_and_forty_pairs_are_warned_of_in_every_stage(tmp_path: Path) -> None:
    recipe = _own(tmp_path / "data", 30, 40)
    run = RunFolder(tmp_path / "run")
    found = advice_before(recipe, run, stages_of(recipe))
    assert {advice.stage for advice in found} == {"tokenizer", "prepare", "pretrain", "sft"}
    assert advice_before(recipe, run, ["export"]) == []
    assert not run.path.exists()


def test_the_recipe_for_own_data_trains_long_enough_on_thirty_files_and_forty_pairs(
    tmp_path: Path,
) -> None:
    (tmp_path / "texts").mkdir()
    for number, article in zip(range(30), articles(), strict=False):
        (tmp_path / "texts" / f"{number}.txt").write_text(article, encoding="utf-8")
    rows = [{"prompt": f.questions[0], "response": f.answer} for f in facts()[:40]]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load_recipe(RECIPES / "own-data.yaml", [f"data_root={json.dumps(str(tmp_path))}"])
    run = RunFolder(tmp_path / "run")
    assert [t.stage for t in size_of(recipe, run).trainings] == ["pretrain", "sft"]
    said = [advice.text for advice in advice_before(recipe, run, stages_of(recipe))]
    assert not [text for text in said if " steps" in text]
    assert any("too few to tell" in text for text in said)


def test_what_cannot_be_read_is_left_to_its_stage(tmp_path: Path) -> None:
    recipe = _own(tmp_path / "data", 30, 40)
    for file in (tmp_path / "data" / "texts").iterdir():
        file.unlink()
    found = advice_before(recipe, RunFolder(tmp_path / "run"), stages_of(recipe))
    assert {advice.stage for advice in found} == {"sft"}
    (tmp_path / "data" / "pairs.jsonl").write_text("{}\n")
    assert advice_before(recipe, RunFolder(tmp_path / "run"), ["sft"]) == []


def test_finished_stages_get_no_advice(pretrained: RunFolder, make_recipe: Any) -> None:
    found = advice_before(make_recipe(), pretrained, ["tokenizer", "prepare", "pretrain", "sft"])
    assert found and {advice.stage for advice in found} == {"sft"}


def test_a_file_that_is_text_and_pairs_is_named(tmp_path: Path) -> None:
    """What is held out of its pairs would be trained on as text; a link to it is the same file,
    and so is a copy."""
    recipe = _own(tmp_path, files=3, pairs=9)
    run = RunFolder(tmp_path / "run")

    def warned(*paths: str) -> bool:
        sources = [{"name": "all", "paths": list(paths), "text_field": "response"}]
        changed = {**recipe.model_dump(), "prepare": {"min_chars": 1, "sources": sources}}
        again = check_recipe(changed, "own.yaml")
        found = advice_before(again, run, stages_of(again))
        return any("pairs.jsonl: read as text and as pairs" in advice.text for advice in found)

    (tmp_path / "link.jsonl").symlink_to("pairs.jsonl")
    (tmp_path / "other.jsonl").write_text(json.dumps({"response": "words"}), encoding="utf-8")
    assert warned("pairs.jsonl") and warned("other.jsonl", "*.jsonl") and warned("link.jsonl")
    assert not warned("other.jsonl")
    pairs = (tmp_path / "pairs.jsonl").read_bytes()
    (tmp_path / "copy.jsonl").write_bytes(pairs)
    (tmp_path / "near.jsonl").write_bytes(pairs[:-3] + b"}" + pairs[-2:])
    assert warned("copy.jsonl") and not warned("near.jsonl")
