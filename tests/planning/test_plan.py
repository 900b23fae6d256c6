"""What a plan counts is what training does; a plan that is stopped leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.cli.plan import _print_totals
from tallyformer.config.model import ModelSection
from tallyformer.config.training import TrainSection
from tallyformer.model.flops import count_parameters
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.planning.planned import Needs, Plan, PlannedTraining
from tallyformer.planning.probe import rehearse
from tallyformer.runs.weights import model_config
from tallyformer.stages.run import write_recipe

SECTIONS = st.builds(
    ModelSection,
    hidden_size=st.sampled_from([4, 12, 24]),
    num_attention_heads=st.sampled_from([1, 2]),
    num_hidden_layers=st.integers(1, 3),
    intermediate_size=st.integers(1, 9),
    norm_type=st.sampled_from(["rmsnorm", "layernorm"]),
    norm_placement=st.sampled_from(["pre", "post"]),
    mlp_type=st.sampled_from(["gelu", "swiglu"]),
    attention_bias=st.booleans(),
    proj_bias=st.booleans(),
    mlp_in_bias=st.booleans(),
    mlp_out_bias=st.booleans(),
    tie_word_embeddings=st.booleans(),
)


@settings(max_examples=60)
@given(section=SECTIONS, vocabulary=st.integers(260, 400))
def test_the_planned_parameters_are_those_of_the_model_that_is_built(
    section: ModelSection, vocabulary: int
) -> None:
    config = model_config(
        section, vocabulary, bos_token_id=None, eos_token_id=None, pad_token_id=None
    )
    with torch.device("meta"):
        model = TallyFormerForCausalLM(config)
    planned = count_parameters(model_config(section, vocabulary))
    assert planned == sum(parameter.numel() for parameter in model.parameters())


def training(part: int) -> PlannedTraining:
    """A phase of distillation; what it needs is given by name."""
    return PlannedTraining(
        stage="distill",
        part=part,
        section=TrainSection(steps=1),
        parameters=1,
        trained_parameters=1,
        context=8,
        steps=1,
        tokens=1,
        validation_tokens=1,
        flops_per_token=1.0,
    )


def plan_of(guessed: list[Needs], measured: dict[str, Needs]) -> Plan:
    trainings = [training(part) for part in range(len(guessed))]
    by_formula = {t.name: needs for t, needs in zip(trainings, guessed, strict=True)}
    return Plan(300, True, [], trainings, ["why"], by_formula, measured)


def test_the_memory_of_all_trainings_is_that_of_the_largest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    guessed = [Needs(900.0, 5000.0, 1.0), Needs(2000.0, 4000.0, 1.0)]
    made = plan_of(guessed, {"distill 2": Needs(1000.0, 4000.0, 2.0)})
    assert (made.peak_memory_mb, made.gpu_memory_mb, made.seconds) == (1000.0, 5000.0, 3.0)
    _print_totals(made)
    said = capsys.readouterr().out
    assert "Peak memory: 1,000 MB. Peak GPU memory: 5,000 MB." in said
    assert "Why." in said and "With ~: by formula" in said


def test_without_a_gpu_none_is_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    made = plan_of([Needs(900.0, None, None)], {})
    assert made.gpu_memory_mb is None
    _print_totals(made)
    said = capsys.readouterr().out
    assert "GPU" not in said and "Time of all trainings: ?" in said


@pytest.fixture
def endless(prepared: RunFolder, make_recipe: Any, tmp_path: Path) -> Path:
    """A recipe whose pretraining does not end."""
    recipe = tmp_path / "recipe.yaml"
    long = {**make_recipe().pretrain.model_dump(mode="json"), "steps": 10**6}
    write_recipe(make_recipe(pretrain=long), recipe)
    return recipe


def test_a_rehearsal_ends_with_its_time(prepared: RunFolder, endless: Path) -> None:
    before = psutil.Process().children()
    assert rehearse(endless, prepared.path, ["pretrain"], 0.5) == {}
    assert psutil.Process().children() == before


def until(condition: Any, process: subprocess.Popen[str]) -> None:
    """Wait for something while a process lives."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def started(command: list[object], **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_plan_with_its_rehearsal_and_its_folder(
    prepared: RunFolder, make_recipe: Any, tmp_path: Path, number: int
) -> None:
    recipe, place = tmp_path / "recipe.yaml", tmp_path / "temporary"
    place.mkdir()
    write_recipe(make_recipe(), recipe)
    script = Path(sys.executable).with_name("tallyformer")
    command = [script, "plan", "--probe-seconds", 300, "--recipe", recipe]
    command += ["--out", prepared.path]
    with started(command, TMPDIR=str(place)) as plan:
        parent = psutil.Process(plan.pid)
        until(parent.children, plan)
        (rehearsal,) = parent.children()
        plan.send_signal(number)
        _, said = plan.communicate(timeout=60)
    assert not psutil.wait_procs([rehearsal], timeout=60)[1]
    if number == signal.SIGTERM:
        assert plan.returncode == 128 + number, said
        last = said.splitlines()[-1]
        assert last.startswith("error: plan: stopped by SIGTERM. Nothing was written")
    else:  # what it left is deleted by the next command, whichever that is
        assert list(place.glob(".tallyformer-*"))
        with started([script, "config", "show", "--recipe", recipe], TMPDIR=str(place)) as command:
            assert command.wait() == 0
    assert not list(place.glob(".tallyformer-*"))
