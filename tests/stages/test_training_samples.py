"""What stages write at each validation: the models' own words, and none of it decides a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tallyformer.errors import ConfigError
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.stages import merge, pretrain, sft

from ..small_run import TRAIN


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "samples.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_saved_model_writes_what_it_wrote_while_it_trained(prepared, make_recipe):
    pretrain.run(make_recipe(), prepared)
    folder = prepared.stage("pretrain")
    written = lines(folder)
    assert [line["step"] for line in written] == [12, 24]
    assert [len(line["samples"]) for line in written] == [3, 3]
    llm = LLM.from_pretrained(folder / "best", device="cpu", runner="torch")
    params = SamplingParams(max_tokens=24, temperature=0.0)
    for sample in written[-1]["samples"]:
        assert len(sample["prompt"].split()) == 8
        assert sample["expected"]
        assert llm.generate(sample["prompt"], params)[0].text.strip() == sample["text"]


def test_each_phase_and_the_teacher_write_samples_of_their_own(tuned):
    for place in ("teacher", "distill/phase-1", "distill/phase-2"):
        assert [len(line["samples"]) for line in lines(tuned.path / place)] == [3, 3]
    assert "phase-2/samples.jsonl" in tuned.manifest("distill", check=True).records


def test_fine_tuning_asks_held_out_questions_as_in_a_chat(tuned, make_recipe):
    recipe = make_recipe()
    merge.run(recipe, tuned)
    llm = LLM.from_pretrained(tuned.stage("merge") / "merged", device="cpu", runner="torch")
    params = SamplingParams(max_tokens=24, temperature=0.0)
    samples = lines(tuned.stage("sft"))[-1]["samples"]
    assert len(samples) == 3
    for sample in samples:
        assert sample["prompt"].endswith("?") and sample["expected"].endswith(".")
        # The merged weights round otherwise than the adapter beside them, so words may differ
        # late in an answer; the first one does not.
        answer = llm.chat(sample["prompt"], params).text
        assert answer.split()[:1] == sample["text"].split()[:1]


def test_a_recipes_own_prompts_are_continued_at_its_length(prepared, make_recipe):
    section = {**TRAIN, "steps": 2, "sample_prompts": ["bond"], "sample_tokens": 3}
    pretrain.run(make_recipe(pretrain=section), prepared)
    samples = [sample for line in lines(prepared.stage("pretrain")) for sample in line["samples"]]
    assert {sample["prompt"] for sample in samples} == {"bond"}
    assert {sample["expected"] for sample in samples} == {""}
    llm = LLM.from_pretrained(prepared.stage("pretrain") / "best", device="cpu", runner="torch")
    assert all(len(llm.tokenizer.encode(sample["text"])) <= 3 for sample in samples)


def test_weights_and_metrics_are_those_of_a_run_that_writes_none(prepared, make_recipe, tmp_path):
    bits = []
    for number, tokens in enumerate((24, 0)):
        run = type(prepared)(tmp_path / f"run-{number}")
        run.path.mkdir()
        for stage in ("tokenizer", "prepare"):
            (run.path / stage).symlink_to(prepared.stage(stage))
        section = {**TRAIN, "dropout": 0.2, "sample_tokens": tokens}
        manifest = pretrain.run(make_recipe(pretrain=section), run)
        assert ("samples.jsonl" in manifest.files) == bool(tokens)
        bits.append(
            (manifest.result, (run.stage("pretrain") / "best/model.safetensors").read_bytes())
        )
    assert bits[0] == bits[1]


def test_other_samples_are_no_other_work(tuned, make_recipe):
    """A begun or finished stage goes on with another number of them."""
    recipe = make_recipe()
    before = sft.work_of(recipe, tuned).fingerprint
    changed = recipe.sft.model_copy(update={"sample_tokens": 7, "sample_prompts": ("Hello",)})
    assert sft.work_of(recipe.model_copy(update={"sft": changed}), tuned).fingerprint == before


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sample_tokens": 0, "sample_prompts": ["a"]}, "sample_prompts is for sample_tokens"),
        ({"sample_prompts": ["a", " "]}, "1 is empty. Write a text"),
        ({"sample_prompts": ["a"] * 17}, "16"),
    ],
)
def test_prompts_that_do_nothing_are_refused(make_recipe, keys, words):
    with pytest.raises(ConfigError, match=words):
        make_recipe(pretrain={**TRAIN, **keys})
