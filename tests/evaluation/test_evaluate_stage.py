"""The stage: numbers that others compute alike, each with the model it belongs to."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe, check_recipe
from tallyformer.corpus.questions import facts
from tallyformer.data.pairs import Pair, split_pairs
from tallyformer.errors import ArtifactError
from tallyformer.evaluation.responses import measure_responses, spread
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.runs.models import models_of
from tallyformer.stages import evaluate
from tallyformer.stages.run import stages_of
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.precision import Precision

from ..tiny_run import SIZES, tiny_recipe


def _results(run: RunFolder) -> dict[str, Any]:
    path = run.stage("evaluate") / "results.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _validation_ids(run: RunFolder, domain: str) -> list[list[int]]:
    """Documents of a domain's validation shard, each with the end of text before and after it,
    as the packed stream has it; read with numpy alone."""
    folder = run.stage("prepare") / "validation" / domain
    ids = np.fromfile(folder / "00000.bin", dtype="<u2").astype(int).tolist()
    starts = np.fromfile(folder / "00000.idx", dtype="<u8").astype(int).tolist()
    return [
        ids[max(0, start - 1) : end]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)
    ]


def test_perplexity_by_domain_is_what_transformers_computes_document_by_document(
    tiny: tuple[Recipe, RunFolder],
) -> None:
    """The documents here are shorter than the context, but a row may begin in the middle of one.
    So the whole stream is compared, in rows of the context's length, cut where documents end."""
    recipe, run = tiny
    model = TallyFormerForCausalLM.from_pretrained(run.stage("pretrain") / "best").eval()
    context = recipe.model.max_position_embeddings
    for row in _results(run)["perplexity"]:
        nats, tokens, place = 0.0, 0, 0
        for document in _validation_ids(run, row["domain"]):
            # Its first id is the end of text of the document before, predicted there.
            begin = place
            place += len(document) - 1
            cuts = [begin, *range((begin // context + 1) * context, place, context), place]
            for first, last in itertools.pairwise(cuts):
                piece = torch.tensor([document[first - begin : last - begin + 1]])
                with torch.no_grad():
                    loss = float(model(piece, labels=piece).loss)
                nats, tokens = nats + loss * (piece.shape[1] - 1), tokens + piece.shape[1] - 1
        assert tokens == row["tokens"]
        # float32 sums in another order.
        assert row["loss"] == pytest.approx(nats / tokens, rel=1e-5)
        assert row["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_every_number_names_a_model_and_every_model_its_folder_and_fingerprint(
    tiny: tuple[Recipe, RunFolder],
) -> None:
    _, run = tiny
    results = _results(run)
    for row in [*results["perplexity"], *results["responses"]]:
        assert row["model"] in results["models"]
    for section in ("manners", "arithmetic", "samples"):
        assert results[section]["model"] in results["models"]
    for stage, model in results["models"].items():
        assert (run.path / model["folder"] / "config.json").is_file()
        assert model["fingerprint"] == run.manifest(stage).result
    assert {row["domain"] for row in results["perplexity"]} == {"bonds", "shares"}


def test_the_manifest_repeats_the_headline_numbers(tiny: tuple[Recipe, RunFolder]) -> None:
    _, run = tiny
    metrics, results = run.manifest("evaluate", check=True).metrics, _results(run)
    for row in results["perplexity"]:
        assert metrics["perplexity"][row["model"]][row["domain"]] == row["perplexity"]
    for name in ("manners", "arithmetic"):
        answers = results[name]["answers"]
        assert answers and metrics[name] == {
            "right": sum(a["right"] for a in answers),
            "asked": len(answers),
        }


def test_evaluating_again_changes_nothing(tiny: tuple[Recipe, RunFolder]) -> None:
    recipe, run = tiny
    folder = run.stage("evaluate")
    before = {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()}
    manifest = evaluate.run(recipe, run)
    assert manifest == run.manifest("evaluate")
    assert before == {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()}


def test_evaluating_with_other_settings_does_not_overwrite(tiny: tuple[Recipe, RunFolder]) -> None:
    recipe, run = tiny
    tree = recipe.model_dump(mode="json", exclude_none=True)
    other = check_recipe({**tree, "evaluate": {"arithmetic": 3}}, "other")
    with pytest.raises(ArtifactError, match="belongs to another run"):
        evaluate.run(other, run)


def test_a_recipe_with_a_stage_that_has_not_run_is_refused(tiny: tuple[Recipe, RunFolder]) -> None:
    recipe, run = tiny
    phase = {"steps": 1}
    tree = recipe.model_dump(mode="json", exclude_none=True)
    more = {**tree, "teacher": {"source": "gpt2"}, "distill": {"phases": [phase]}}
    with pytest.raises(ArtifactError, match="distill: not there or not finished"):
        evaluate.run(check_recipe(more, "more"), run)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunFolder]:
    """A run with a teacher of its own, two phases of distillation and fine-tuning."""
    root = tmp_path_factory.mktemp("whole")
    pairs = [
        json.dumps({"prompt": f"What is {i} and {i}?", "response": f"It is {2 * i}."})
        for i in range(60)
    ]
    (root / "pairs.jsonl").write_text("\n".join(pairs), encoding="utf-8")
    short = {"steps": 2, "micro_batch": 2, "gradient_accumulation": 1, "precision": "fp32"}
    recipe = tiny_recipe(
        root,
        teacher={"model": {**SIZES, "hidden_size": 16}, "train": short},
        distill={"phases": [short, short]},
        sft={**short, "sources": [{"name": "sums", "paths": ["pairs.jsonl"]}]},
        evaluate={"tokens_per_domain": 3000, "pairs": 4, "facts": True, "max_tokens": 2},
    )
    run = RunFolder(root / "runs" / "whole")
    for stage in stages_of(recipe)[:-1]:
        importlib.import_module(f"tallyformer.stages.{stage}").run(recipe, run)
    return recipe, run


def test_a_whole_run_measures_every_model_and_responses_before_and_after(
    whole: tuple[Recipe, RunFolder],
) -> None:
    _, run = whole
    results = _results(run)
    assert {name: model["folder"] for name, model in results["models"].items()} == {
        "pretrain": "pretrain/best",
        "teacher": "teacher/best",
        "distill": "distill/best",
        "merge": "merge/merged",
    }
    measured = [(row["model"], row["domain"]) for row in results["perplexity"]]
    assert measured == list(itertools.product(results["models"], ("bonds", "shares")))
    whens = [(row["model"], row["when"]) for row in results["responses"]]
    assert whens == [("distill", "before sft"), ("merge", "after sft")]
    assert results["facts"]["model"] == results["samples"]["model"] == "merge"
    assert len(results["facts"]["answers"]) == sum(len(fact.held_out) for fact in facts())


def test_every_model_that_began_with_another_has_its_change_with_an_interval(
    whole: tuple[Recipe, RunFolder],
) -> None:
    results = _results(whole[1])
    texts = {(row["model"], row["domain"]): row for row in results["perplexity"]}
    for (model, domain), row in texts.items():
        assert row["passages"] > 1
        start = {"distill": "pretrain", "merge": "distill"}.get(model)
        assert ("change" in row) == (start is not None)
        if start:
            value = row["loss"] - texts[start, domain]["loss"]
            assert row["change"]["value"] == pytest.approx(value, abs=1e-9)
            assert row["change"]["low"] <= value <= row["change"]["high"]
    before, after = results["responses"]
    assert before["passages"] == after["passages"] == 4 and "change" not in before
    assert after["change"]["value"] == pytest.approx(after["loss"] - before["loss"], abs=1e-9)


def test_the_samples_are_the_users_own_held_out_prompts(whole: tuple[Recipe, RunFolder]) -> None:
    recipe, run = whole
    assert recipe.sft is not None
    split = split_pairs(
        recipe.sft.sources,
        data_root=recipe.data_root,
        validation_fraction=recipe.sft.validation_fraction,
        seed=recipe.seed,
    )
    held_out = {pair.question: pair.response for pair in split.validation}
    samples = _results(run)["samples"]["answers"]
    assert len(samples) == min(5, len(held_out)) > 0
    for sample in samples:
        assert held_out[sample["question"]] == sample["expected"]
    page = (run.stage("evaluate") / "report.html").read_text(encoding="utf-8")
    assert f"In the data: {samples[0]['expected']}" in page


def test_without_fine_tuning_the_samples_continue_held_out_texts(
    tiny: tuple[Recipe, RunFolder],
) -> None:
    _, run = tiny
    tokenizer = Tokenizer.from_pretrained(run.stage("tokenizer"))
    texts = {
        " ".join(tokenizer.decode(ids[:-1]).split())
        for domain in ("bonds", "shares")
        for ids in _validation_ids(run, domain)
    }
    samples = _results(run)["samples"]["answers"]
    assert len(samples) == 5
    for sample in samples:
        assert any(sample["question"] in text and sample["expected"] in text for text in texts)


def test_the_report_of_a_whole_run_shows_every_phase_and_the_pairs(
    whole: tuple[Recipe, RunFolder],
) -> None:
    page = (whole[1].stage("evaluate") / "report.html").read_text(encoding="utf-8")
    for shown in ("distill, phase 1", "distill, phase 2", "after sft (merge)", "held out"):
        assert shown in page


def test_changed_pairs_are_other_work(whole: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    """Validation of the very same stages on other pairs would be another number."""
    recipe, run = whole
    moved = recipe.model_copy(update={"data_root": str(tmp_path)})
    source = Path(recipe.data_root) / "pairs.jsonl"
    text = source.read_text(encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text(text, encoding="utf-8")
    assert evaluate.run(moved, run) == run.manifest("evaluate")
    (tmp_path / "pairs.jsonl").write_text(text.replace("It is 2.", "It is 3."), encoding="utf-8")
    with pytest.raises(ArtifactError, match="evaluate: belongs to another run"):
        evaluate.run(moved, run)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer/tokenizer.json",
        "pretrain/best/model.safetensors",
        "teacher/best/model.safetensors",
        "distill/best/model.safetensors",
        "merge/merged/model.safetensors",
    ],
)
def test_what_was_altered_at_equal_size_is_not_measured(
    whole: tuple[Recipe, RunFolder], tmp_path: Path, name: str
) -> None:
    recipe, run = whole
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    content = bytearray((copy.path / name).read_bytes())
    content[-1] ^= 1
    (copy.path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name}: checksum differs from the manifest"):
        evaluate.run(recipe, copy)


def test_a_ready_teacher_is_measured_with_the_run(
    tiny: tuple[Recipe, RunFolder], tmp_path: Path
) -> None:
    recipe, run = tiny
    tree = recipe.model_dump(mode="json", exclude_none=True)
    source = str(run.stage("pretrain") / "best")
    tree |= {"teacher": {"source": source}, "distill": {"phases": [{"steps": 1}]}}
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    shutil.copytree(run.stage("pretrain"), copy.stage("distill"))
    models = models_of(check_recipe(tree, "more"), copy)
    assert [(m.stage, m.shown) for m in models] == [
        ("pretrain", "pretrain/best"),
        ("teacher", source),
        ("distill", "distill/best"),
    ]


def test_response_perplexity_counts_the_response_and_its_end_alone(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer
) -> None:
    pairs = [
        Pair("a", "What is a bond?", "A bond pays a coupon."),
        Pair("b", "Why?", "Yields rise."),
        Pair("c", "What is a share?", "A part of a company.", context="Be brief."),
    ]
    found = measure_responses(
        model,
        pairs,
        tokenizer,
        context=64,
        batch_size=2,
        precision=Precision("fp32", torch.device("cpu")),
    )
    expected = []
    for pair in pairs:
        question = tokenizer.encode(f" {pair.question} ")
        answer = [*tokenizer.encode(f" {pair.response}"), tokenizer.eot_id]
        ids = torch.tensor([[tokenizer.user_id, *question, tokenizer.assistant_id, *answer]])
        with torch.no_grad():
            log_p = model(ids).logits[0, :-1].log_softmax(-1)
        of_answer = log_p[-len(answer) :].gather(1, torch.tensor(answer)[:, None])
        expected.append((len(answer), -float(of_answer.sum())))
    ours = sorted((loss.tokens, loss.nats) for loss in found)
    assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in sorted(expected)]
    for (_, nats), (_, other) in zip(ours, sorted(expected), strict=True):
        assert nats == pytest.approx(other, rel=1e-5)


def test_pairs_are_taken_evenly_from_all() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(3), 10) == [0, 1, 2]
    assert spread([], 5) == []
