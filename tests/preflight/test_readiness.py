"""What would end a run after its training is found out before, by the dry run and by the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import TallyFormerError
from tallyformer.preflight import foreseen, readiness
from tallyformer.stages.run import dry_run_stages, run_stages, stages_of
from tallyformer.tokenizer import Tokenizer

LENGTH = {"steps": 2, "micro_batch": 4, "gradient_accumulation": 1, "evaluations": 1}
WITHOUT_TEACHER = {"teacher": None, "distill": None}


class Begun:
    """Notes which stages begin."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def begins(self, stage: str, number: int, count: int, *, finished: bool) -> None:
        self.stages.append(stage)

    def ends(self, stage: str, folder: Path, manifest: Any, *, finished: bool) -> None: ...


def refusals(recipe: Recipe, run: RunFolder) -> tuple[str, str, list[str]]:
    """What the dry run and the run say, and the stages that the run begins."""
    existed = run.path.exists()
    with pytest.raises(TallyFormerError) as dry:
        dry_run_stages(recipe, run, stages_of(recipe), resume=True)
    assert run.path.exists() == existed
    begun = Begun()
    with pytest.raises(TallyFormerError) as real:
        run_stages(recipe, run, stages_of(recipe), resume=True, announcer=begun)
    assert (type(dry.value), str(dry.value)) == (type(real.value), str(real.value))
    return str(dry.value), str(real.value), begun.stages


@pytest.fixture
def refused_at_once(make_recipe: Any, tmp_path: Path) -> Any:
    """Refused by the dry run, and by the run before any stage begins."""

    def check(words: str, **sections: Any) -> None:
        run = RunFolder(tmp_path / "new")
        said, _, begun = refusals(make_recipe(**sections), run)
        assert words in said
        assert not begun and not run.path.exists()

    return check


@pytest.fixture
def refused_before_training(make_recipe: Any, tmp_path: Path, prepared: RunFolder) -> Any:
    """Refused by the dry run of a new folder, and by the run before the first training stage."""

    def check(words: str, **sections: Any) -> None:
        recipe = make_recipe(**sections)
        with pytest.raises(TallyFormerError) as dry:
            dry_run_stages(recipe, RunFolder(tmp_path / "new"), stages_of(recipe), resume=True)
        assert words in str(dry.value)
        said, _, begun = refusals(recipe, prepared)
        assert words in said
        assert begun == ["tokenizer", "prepare"]

    return check


def pairs_in(folder: Path, *rows: dict[str, Any]) -> dict[str, Any]:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"sft": {**LENGTH, "sources": [{"name": "own", "paths": [str(path)]}]}}


def test_pairs_without_the_field_are_refused(refused_at_once: Any, tmp_path: Path) -> None:
    changes = pairs_in(tmp_path, {"question": "a", "answer": "b"})
    refused_at_once("no field 'prompt'; there are 'question', 'answer'", **changes)


def test_a_later_file_without_the_field_is_refused(refused_at_once: Any, tmp_path: Path) -> None:
    for name, field in (("a", "text"), ("b", "text"), ("c", "body")):
        rows = [json.dumps({field: f"{name} {n} words"}) for n in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    sources = [{"name": "own", "paths": [str(tmp_path / "*.jsonl")]}]
    refused_at_once("no field 'text'; there are 'body'", prepare={"sources": sources})


def test_a_row_that_is_damaged_far_behind_is_refused_before_training(
    refused_before_training: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": f"p {n}", "response": "r"} for n in range(50)]
    changes = pairs_in(tmp_path, *rows, {"prompt": "p"})
    refused_before_training("own.jsonl:51: no field 'response'", **changes)


def test_all_inputs_that_cannot_be_used_are_named(refused_at_once: Any, tmp_path: Path) -> None:
    changes = pairs_in(tmp_path, {"question": "a"})
    prepare = {"sources": [{"name": "none", "paths": ["no/*.txt"]}]}
    refused_at_once("no field 'prompt'", prepare=prepare, **changes)
    refused_at_once("no file matches 'no/*.txt'", prepare=prepare, **changes)


def test_files_that_changed_since_the_dry_run_are_noticed(make_recipe: Any, tmp_path: Path) -> None:
    changes = pairs_in(tmp_path, *({"prompt": f"p {n}", "response": "r"} for n in range(9)))
    recipe, run = make_recipe(**changes), RunFolder(tmp_path / "new")
    dry_run_stages(recipe, run, stages_of(recipe), resume=True)
    pairs_in(tmp_path, {"prompt": "p"})
    begun = Begun()
    with pytest.raises(TallyFormerError, match="no field 'response'"):
        run_stages(recipe, run, stages_of(recipe), resume=True, announcer=begun)
    assert not begun.stages


def test_modules_that_the_model_lacks_are_named(refused_before_training: Any, texts: Path) -> None:
    sources = [{"name": "pairs", "paths": ["pairs.jsonl"]}]
    lora = {"target_modules": ["query", "gate"]}
    sft = {**LENGTH, "sources": sources, "lora": lora}
    refused_before_training("target_modules: the model has no module 'gate'", sft=sft)


def test_pairs_of_one_question_are_refused(refused_before_training: Any, tmp_path: Path) -> None:
    changes = pairs_in(tmp_path, *({"prompt": "same", "response": f"r {n}"} for n in range(3)))
    refused_before_training("none can be held out for validation", **changes)


def test_a_missing_compiler_of_a_late_stage_is_noticed(
    refused_before_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("CC", "/no/such/compiler")
    sources = [{"name": "pairs", "paths": ["pairs.jsonl"]}]
    sft = {**LENGTH, "sources": sources, "compile": "on"}
    refused_before_training("compile: on needs what torch.compile needs", sft=sft)


def test_a_disk_that_is_too_small_is_noticed(
    refused_before_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A real disk cannot be made so small without its owner's rights.
    monkeypatch.setattr(
        readiness.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0)
    )
    refused_before_training("0 MB free, and the models of this run need")


def test_several_things_are_named_together(
    refused_before_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("CC", "/no/such/compiler")
    sources = [{"name": "pairs", "paths": ["pairs.jsonl"]}]
    sft = {**LENGTH, "sources": sources, "compile": "on", "lora": {"target_modules": ["x"]}}
    refused_before_training("2 things stand in the way", sft=sft)


def dry(recipe: Recipe, folder: Path) -> str:
    with pytest.raises(TallyFormerError) as caught:
        dry_run_stages(recipe, RunFolder(folder / "new"), stages_of(recipe), resume=True)
    return str(caught.value)


def test_a_vocabulary_that_the_text_does_not_give_is_refused(
    make_recipe: Any, tmp_path: Path
) -> None:
    said = dry(make_recipe(tokenizer={"kind": "train", "vocab_size": 50_000}), tmp_path)
    assert "tokenizer.vocab_size is 50000, but the text supports only" in said


def test_a_source_without_a_sequence_is_refused(make_recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("A bond.", encoding="utf-8")
    sources = [
        {"name": "words", "paths": ["texts/*.txt"], "weight": 1},
        {"name": "short", "paths": [str(tmp_path / "short.txt")], "weight": 1},
    ]
    said = dry(make_recipe(prepare={"sources": sources, "min_chars": 1}), tmp_path)
    assert "source 'short' has" in said and "one sequence needs 33" in said


def test_texts_without_one_that_is_held_out_are_refused(make_recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("A bond pays interest. " * 15, encoding="utf-8")
    sources = [{"name": "one", "paths": [str(tmp_path / "one.txt")]}]
    prepare = {"sources": sources, "validation_fraction": 0.001}
    said = dry(
        make_recipe(prepare=prepare, tokenizer={"kind": "train", "vocab_size": 262}), tmp_path
    )
    assert "validation: every source is empty. Give prepare more text" in said


def test_texts_of_which_nothing_is_kept_are_refused(make_recipe: Any, tmp_path: Path) -> None:
    sources = [
        {"name": "words", "paths": ["texts/*.txt"]},
        {"name": "none", "paths": [str(tmp_path / "short.txt")]},
    ]
    (tmp_path / "short.txt").write_text("A bond.", encoding="utf-8")
    said = dry(make_recipe(prepare={"sources": sources, "min_chars": 60}), tmp_path)
    assert "source 'none': none of its 1 documents is kept (1 too_short)" in said


def test_the_sizes_that_are_foreseen_are_those_of_prepare(
    make_recipe: Any, prepared: RunFolder, tmp_path: Path
) -> None:
    found = foreseen.foresee(make_recipe())
    assert found == foreseen.Foreseen(found.tokenizer, foreseen.prepared_sizes(prepared))
    assert found.tokenizer
    made = Tokenizer.from_pretrained(prepared.stage("tokenizer"))
    assert found.tokenizer.fingerprint == made.fingerprint


def test_of_large_texts_nothing_is_guessed(
    make_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreseen, "SMALL_BYTES", 100)
    found = foreseen.foresee(make_recipe())
    assert found.tokenizer is None and found.sources[0].tokens is None


@pytest.fixture
def other_teacher(tmp_path: Path, make_recipe: Any, prepared: RunFolder) -> Any:
    """A recipe with a ready teacher of transformers, with a tokenizer of this run or another."""

    def make(*, positions: int = 64, tokenizer: str = "same", weights: bool = True) -> Recipe:
        folder = tmp_path / "teacher"
        config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=300, n_positions=positions)
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
        if tokenizer == "same":
            for file in prepared.stage("tokenizer").glob("t*.json"):
                shutil.copy(file, folder)
        elif tokenizer == "other":
            Tokenizer.train(["zyx wvu tsr qpo nml kji hgf edc ba " * 9], 280).save(folder)
        if not weights:
            (folder / "model.safetensors").unlink()
        return make_recipe(teacher={"source": str(folder)})

    return make


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": 16}, "reads 16 positions, the model 32"),
        ({"tokenizer": "other"}, "its tokenizer is another one; id"),
        ({"tokenizer": "none"}, "its tokenizer cannot be loaded"),
        ({"weights": False}, "it holds no weights"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_training(
    other_teacher: Any, prepared: RunFolder, changes: dict[str, Any], words: str
) -> None:
    said, _, begun = refusals(other_teacher(**changes), prepared)
    assert words in said
    assert begun == ["tokenizer", "prepare"]


def test_a_teacher_that_can_teach_is_in_order(other_teacher: Any, prepared: RunFolder) -> None:
    recipe = other_teacher()
    dry_run_stages(recipe, prepared, stages_of(recipe), resume=True)


def test_a_teacher_that_generates_nothing_is_refused(
    make_recipe: Any, prepared: RunFolder, tmp_path: Path
) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tmp_path / "teacher"
    BertModel(BertConfig(**small, intermediate_size=16)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    said, _, begun = refusals(make_recipe(teacher={"source": str(folder)}), prepared)
    assert "is of no causal language model" in said
    assert begun == ["tokenizer", "prepare"]


def test_questions_for_which_the_context_has_no_room_are_refused(
    make_recipe: Any, tmp_path: Path
) -> None:
    model = {**make_recipe().model.model_dump(), "max_position_embeddings": 8}
    recipe = make_recipe(
        model=model, evaluate={"prompts": ["Is it \N{GRINNING FACE}"]}, **WITHOUT_TEACHER
    )
    assert "leaves no room for a question" in dry(recipe, tmp_path)


def test_stages_that_are_finished_are_not_checked(tuned: RunFolder, make_recipe: Any) -> None:
    recipe = make_recipe()
    shutil.rmtree(tuned.stage("sft"))
    dry_run_stages(recipe, tuned, stages_of(recipe), resume=True)
