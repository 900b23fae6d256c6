from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tallyformer.errors import ArtifactError, CheckpointError, UsageError
from tallyformer.export.verify import fresh_logits
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.stages import pretrain, teacher
from tallyformer.stages.run import write_recipe
from tallyformer.training.metrics import read_metrics


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_pretrain_leaves_a_model_that_has_learnt_and_says_what_it_cost(prepared, make_recipe):
    manifest = pretrain.run(make_recipe(), prepared)
    metrics = manifest.metrics
    assert metrics["validation_perplexity"] < 100 < 300
    assert metrics["validation_perplexity"] == pytest.approx(math.exp(metrics["validation_loss"]))
    assert metrics["tokens"] == 24 * 2 * 4 * 32
    for name in ("validation_bits_per_byte", "tokens_per_second", "wall_seconds", "peak_memory_mb"):
        assert metrics[name] > 0
    best = prepared.stage("pretrain") / "best"
    model = TallyFormerForCausalLM.from_pretrained(best)
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(best))
    assert "best/model.safetensors" in manifest.files
    assert "metrics.jsonl" in manifest.files
    lines = read_metrics(prepared.stage("pretrain") / "metrics.jsonl")
    assert lines[-1]["loss"] == metrics["validation_loss"]


def test_a_finished_stage_is_returned_as_it_is(prepared, make_recipe):
    first = pretrain.run(make_recipe(), prepared)
    before = weights(prepared.stage("pretrain") / "best")
    assert pretrain.run(make_recipe(), prepared) == first
    assert weights(prepared.stage("pretrain") / "best") == before


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(prepared, make_recipe, tmp_path):
    folders = []
    for number, seed in enumerate((1337, 1337, 7)):
        copy = type(prepared)(tmp_path / str(number))
        for stage in ("tokenizer", "prepare"):
            copy.path.mkdir(exist_ok=True)
            (copy.path / stage).symlink_to(prepared.stage(stage))
        pretrain.run(make_recipe(seed=seed), copy)
        folders.append(copy.stage("pretrain") / "best")
    assert weights(folders[0]) == weights(folders[1])
    assert weights(folders[0]) != weights(folders[2])


def test_best_is_the_recipes_model_though_the_run_overrode_its_dropout(prepared, make_recipe):
    recipe = make_recipe()
    changed = recipe.model_copy(
        update={"pretrain": recipe.pretrain.model_copy(update={"dropout": 0.3, "steps": 2})}
    )
    pretrain.run(changed, prepared)
    config = json.loads((prepared.stage("pretrain") / "best" / "config.json").read_text())
    assert config["dropout"] == recipe.model.dropout == 0.1


def test_an_altered_shard_is_named_and_nothing_is_trained(prepared, make_recipe):
    shard = next(prepared.stage("prepare").glob("train/*/*.bin"))
    data = bytearray(shard.read_bytes())
    data[10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ArtifactError, match=str(shard)):
        pretrain.run(make_recipe(), prepared)
    assert not (prepared.stage("pretrain") / "best").exists()


def test_a_teacher_needs_a_model_to_train(prepared, make_recipe):
    recipe = make_recipe(teacher={"source": "gpt2-medium"})
    with pytest.raises(UsageError, match=r"teacher\.model"):
        teacher.run(recipe, prepared)


def start(run, recipe_file: Path) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("tallyformer")), "pretrain"]
    command += ["--recipe", str(recipe_file), "--out", str(run.path), "--resume"]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_sigterm_through_the_command_line_saves_and_the_next_run_goes_on(
    prepared, make_recipe, tmp_path
):
    recipe = make_recipe()
    long = recipe.model_copy(
        update={"pretrain": recipe.pretrain.model_copy(update={"steps": 2000, "evaluations": 1})}
    )
    write_recipe(long, tmp_path / "long.yaml")
    process = start(prepared, tmp_path / "long.yaml")
    log = prepared.stage("pretrain") / "metrics.jsonl"
    while len(read_metrics(log)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    last = errors.strip().splitlines()[-1]
    assert "everything is saved" in last
    assert "--resume" in last
    state = prepared.stage("pretrain") / "checkpoints" / "last" / "state.json"
    assert json.loads(state.read_text())["state"]["step"] >= 20
    state.write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"checkpoints/last.*damaged"):
        pretrain.run(long, prepared)


def test_the_folder_loads_through_the_auto_classes(prepared, make_recipe):
    pretrain.run(make_recipe(), prepared)
    best = prepared.stage("pretrain") / "best"
    ids = torch.arange(20)[None]
    with torch.no_grad():
        ours = TallyFormerForCausalLM.from_pretrained(best).eval()(ids).logits
    # A process of its own, which finds the folder's code and not the package.
    torch.testing.assert_close(fresh_logits(best, ids), ours)
