from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tallyformer.errors import ArtifactError, TokenizerError, UsageError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.runs.data import load_shards, load_tokenizer, packed_sources
from tallyformer.runs.teacher import load_teacher_model, shared_ids
from tallyformer.stages import distill
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.loop import evaluate_only
from tallyformer.training.metrics import read_metrics

from ..small_run import PHASE


def measured(run, recipe, folder: Path) -> float:
    """Validation perplexity of a folder, measured again."""
    tokenizer = load_tokenizer(run)
    section = recipe.distill.phases[-1]
    _, validation = packed_sources(load_shards(run, tokenizer), section, None, context=32, seed=0)
    model = TallyFormerForCausalLM.from_pretrained(folder)
    found = evaluate_only(
        model,
        validation,
        device=torch.device("cpu"),
        section=section,
        token_bytes=tokenizer.token_bytes(),
        label="validation",
    )
    return found.perplexity


def test_distillation_helps_and_each_figure_is_of_the_model_it_names(pretrained, make_recipe):
    recipe = make_recipe()
    metrics = distill.run(recipe, pretrained).metrics
    student, best = (pretrained.stage(s) / "best" for s in ("pretrain", "distill"))
    assert metrics["validation_perplexity_before"] == measured(pretrained, recipe, student)
    assert metrics["validation_perplexity"] == measured(pretrained, recipe, best)
    assert metrics["validation_perplexity"] < metrics["validation_perplexity_before"]
    phases = metrics["phases"]
    assert len(phases) == 2
    after = metrics["validation_perplexity_after_phases"]
    assert after[metrics["best_phase"] - 1] == min(after) == metrics["validation_perplexity"]


def test_a_student_that_no_phase_improves_is_kept(pretrained, make_recipe):
    wild = {**PHASE, "steps": 2, "optimizer": {"learning_rate": 3.0}}
    metrics = distill.run(make_recipe(distill={"phases": [wild]}), pretrained).metrics
    assert metrics["best_phase"] == 0
    assert metrics["validation_perplexity_after_phases"][0] > metrics["validation_perplexity"]
    assert metrics["validation_perplexity"] == metrics["validation_perplexity_before"]
    student, kept = (pretrained.stage(s) / "best" for s in ("pretrain", "distill"))
    name = "model.safetensors"
    assert (kept / name).read_bytes() == (student / name).read_bytes()


def test_a_phase_starts_from_the_best_of_the_one_before(pretrained, make_recipe):
    still = {**PHASE, "steps": 1, "optimizer": {"learning_rate": 1e-30}}
    recipe = make_recipe(
        distill={"phases": [{**PHASE, "temperature": 2.0}, {**still, "temperature": 3.0}]}
    )
    distill.run(recipe, pretrained)
    first, second = (
        TallyFormerForCausalLM.from_pretrained(pretrained.stage("distill") / f"phase-{n}" / "best")
        for n in (1, 2)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_stored_teacher_pass_is_reused_and_bound_to_its_run(pretrained, make_recipe, tmp_path):
    phases = [{**PHASE, "temperature": 2.5}, {**PHASE, "temperature": 3.0}]
    section = {"phases": phases, "cache": "top-k", "cache_folder": str(tmp_path / "pass")}
    recipe = make_recipe(distill=section)
    first = distill.run(recipe, pretrained).metrics
    assert first["validation_perplexity"] < first["validation_perplexity_before"]
    rows = tmp_path / "pass" / "rows.bin"
    size = rows.stat().st_size
    weights = (pretrained.stage("distill") / "best" / "model.safetensors").read_bytes()
    shutil.rmtree(pretrained.stage("distill"))
    distill.run(recipe, pretrained)
    assert rows.stat().st_size == size
    again = (pretrained.stage("distill") / "best" / "model.safetensors").read_bytes()
    assert again == weights
    shutil.rmtree(pretrained.stage("distill"))
    with pytest.raises(ArtifactError, match=r"another run.*top_k.*cache_folder"):
        distill.run(make_recipe(distill={**section, "cache_top_k": 5}), pretrained)


def test_a_killed_phase_goes_on_and_finished_phases_are_kept(pretrained, make_recipe):
    recipe = make_recipe()
    distill.run(recipe, pretrained)
    best = pretrained.stage("distill") / "best" / "model.safetensors"
    expected = best.read_bytes()
    (pretrained.stage("distill") / "manifest.json").unlink()
    distill.work_of(recipe, pretrained).claim()
    kept = pretrained.stage("distill") / "phase-1" / "result.json"
    stamp = kept.stat().st_mtime_ns
    shutil.rmtree(pretrained.stage("distill") / "phase-2")
    shutil.rmtree(pretrained.stage("distill") / "best")
    distill.run(recipe, pretrained)
    assert best.read_bytes() == expected
    assert kept.stat().st_mtime_ns == stamp


def gpt2_teacher(folder: Path, tokenizer_folder: Path, rows: int) -> str:
    """A GPT-2 with this tokenizer and more rows in its head than ids."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=rows,
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / file, folder / file)
    return str(folder)


def run_with_source(pretrained: Any, make_recipe: Any, source: str) -> Any:
    phases = [{**PHASE, "steps": 2, "temperature": 2.0}]
    recipe = make_recipe(teacher={"source": source}, distill={"phases": phases})
    return distill.run(recipe, pretrained)


def test_any_causal_language_model_can_teach(pretrained, make_recipe, tmp_path):
    source = gpt2_teacher(tmp_path / "gpt2", pretrained.stage("tokenizer"), rows=384)
    metrics = run_with_source(pretrained, make_recipe, source).metrics
    log = pretrained.stage("distill") / "phase-1" / "metrics.jsonl"
    trained = [line for line in read_metrics(log) if line["kind"] == "train"]
    assert trained[0]["kl"] > 0
    assert metrics["validation_perplexity"] > 1


def test_only_ids_that_both_know_are_shared(pretrained, tmp_path):
    folder = pretrained.stage("tokenizer")
    source = gpt2_teacher(tmp_path / "gpt2", folder, rows=384)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = load_teacher_model(source, torch.float32, 32)
    assert shared_ids(source, model, folder, tokenizer) == tokenizer.vocab_size == 300
    # A teacher that does not know the last two control tokens, as GPT-2 does not.
    path = tmp_path / "gpt2" / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["added_tokens"] = [t for t in tree["added_tokens"] if t["id"] < 298]
    tree["model"]["vocab"] = {t: i for t, i in tree["model"]["vocab"].items() if i < 298}
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert shared_ids(source, model, folder, tokenizer) == 298


def test_a_teacher_with_another_tokenizer_is_refused(pretrained, make_recipe, tmp_path):
    other = Tokenizer.train(["quite another text with other merges " * 3] * 9, 280)
    other.save(tmp_path / "other")
    source = gpt2_teacher(tmp_path / "gpt2", tmp_path / "other", rows=300)
    with pytest.raises(TokenizerError, match=r"its tokenizer is another one; id \d+ is"):
        run_with_source(pretrained, make_recipe, source)


def test_a_teacher_without_a_tokenizer_is_refused(pretrained, make_recipe, tmp_path):
    source = gpt2_teacher(tmp_path / "gpt2", pretrained.stage("tokenizer"), rows=300)
    for file in (tmp_path / "gpt2").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TokenizerError, match="tokenizer cannot be loaded"):
        run_with_source(pretrained, make_recipe, source)


def test_a_teacher_that_cannot_be_loaded_is_named(pretrained, make_recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"teacher .*empty: holds no config\.json"):
        run_with_source(pretrained, make_recipe, str(tmp_path / "empty"))


def test_a_teacher_that_lacks_a_tensor_is_refused(pretrained, make_recipe, tmp_path):
    source = gpt2_teacher(tmp_path / "gpt2", pretrained.stage("tokenizer"), rows=300)
    weights = tmp_path / "gpt2" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["transformer.h.0.mlp.c_fc.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"missing: .*mlp\.c_fc\.weight"):
        run_with_source(pretrained, make_recipe, source)
    shutil.rmtree(pretrained.stage("distill"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"teacher .*gpt2: cannot be loaded"):
        run_with_source(pretrained, make_recipe, source)


def test_a_student_altered_at_equal_size_is_refused(pretrained, make_recipe):
    weights = pretrained.stage("pretrain") / "best" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors: checksum differs"):
        distill.run(make_recipe(), pretrained)


def test_a_teacher_that_reads_less_than_the_context_is_refused(pretrained, make_recipe, tmp_path):
    source = gpt2_teacher(tmp_path / "gpt2", pretrained.stage("tokenizer"), rows=300)
    config = tmp_path / "gpt2" / "config.json"
    values = json.loads(config.read_text())
    torch.manual_seed(0)
    small = transformers.GPT2Config(**{**values, "n_positions": 16})
    transformers.GPT2LMHeadModel(small).save_pretrained(source)
    with pytest.raises(ArtifactError, match="reads 16 positions, the model 32"):
        run_with_source(pretrained, make_recipe, source)


def test_a_recipe_without_the_section_is_refused(pretrained, make_recipe):
    with pytest.raises(UsageError, match="no distill section"):
        distill.run(make_recipe(distill=None), pretrained)
