"""Stage evaluate: how good each model of the run is, as results.json and report.html."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.artifacts.json_files import write_checked_json
from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import REPORT, RESULTS, RunFolder, StageWork
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource
from tallyformer.corpus.manners import held_out_conversations
from tallyformer.corpus.questions import facts
from tallyformer.corpus.worked_examples import held_out_examples
from tallyformer.data.batch import Batch
from tallyformer.data.packed import ValidationBatches
from tallyformer.data.pairs import Pair, split_pairs
from tallyformer.data.shards import Shards
from tallyformer.data.sources import pair_source
from tallyformer.evaluation.answers import greedy_answers, greedy_continuations
from tallyformer.evaluation.arithmetic import ask_arithmetic
from tallyformer.evaluation.facts import ask_facts
from tallyformer.evaluation.machine import describe_machine
from tallyformer.evaluation.manners import ask_manners
from tallyformer.evaluation.perplexity import measure_passages
from tallyformer.evaluation.responses import measure_responses, spread
from tallyformer.evaluation.samples import (
    Question,
    Sample,
    beginnings_of_texts,
    questions_of_facts,
    questions_of_pairs,
    take_samples,
)
from tallyformer.evaluation.statistics import Difference, bootstrap_mean_change
from tallyformer.inference.llm import LLM
from tallyformer.model.device import choose_device
from tallyformer.model.loading import load_model
from tallyformer.model.pretrained import quiet_library
from tallyformer.preflight.inputs import check_same_inputs
from tallyformer.progress import progress_bar
from tallyformer.report.page import write_report
from tallyformer.runs.data import load_shards, load_tokenizer
from tallyformer.runs.models import RunModel, final_model, models_of
from tallyformer.runs.samples import validation_texts
from tallyformer.runs.teacher import load_teacher_model, teacher_revision
from tallyformer.training.precision import choose_precision
from tallyformer.training.validation import TextLoss

FORMAT = 1
ROWS_AT_ONCE = 16


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Measure every model of the run and write the report, or return at once if that is done.

    Raises:
        ArtifactError: a stage of the recipe is not finished, or a file has been altered.
        DataError: a source of the held-out pairs cannot be used.
    """
    models = models_of(recipe, folder)
    work = _work(recipe, folder, models, resume)
    if _pair_sources(recipe) and not folder.is_finished("evaluate"):
        check_same_inputs(work.inputs, folder.manifest("sft"))
    if done := work.already_done():
        return done
    started = time.monotonic()
    results = _Evaluation(recipe, folder, models).results()
    results["seconds"] = round(time.monotonic() - started, 1)
    write_checked_json(work.folder / RESULTS, results)
    write_report([folder], work.folder / REPORT)
    return work.finish(metrics=_headline(results), files=[Path(RESULTS), Path(REPORT)])


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the results. Reads the sources of pairs to the end."""
    return _work(recipe, folder, models_of(recipe, folder), resume)


def _work(recipe: Recipe, folder: RunFolder, models: Sequence[RunModel], resume: bool) -> StageWork:
    return StageWork(
        run=folder,
        stage="evaluate",
        config=recipe.evaluate.model_dump(mode="json"),
        seed=recipe.seed,
        inputs={
            # The shards' checksums are compared when they are loaded.
            "tokenizer": folder.manifest("tokenizer", check=True).result,
            "prepare": folder.manifest("prepare").result,
            **{model.stage: model.result for model in models},
            **_pair_fingerprints(recipe),
        },
        resume=resume,
    )


def _pair_sources(recipe: Recipe) -> Sequence[PairSource]:
    """The sources whose held-out pairs are measured or shown."""
    wanted = recipe.evaluate.pairs or (_own_sources(recipe) and not recipe.evaluate.prompts)
    return recipe.sft.sources if recipe.sft and wanted else ()


def _pair_fingerprints(recipe: Recipe) -> dict[str, str]:
    inputs: dict[str, str] = {}
    for section in _pair_sources(recipe):
        found = pair_source(section, data_root=recipe.data_root, seed=recipe.seed)
        inputs |= found.fingerprints()
    return inputs


class _Evaluation:
    """What is measured, on which models; the parts of results.json are its methods."""

    def __init__(self, recipe: Recipe, folder: RunFolder, models: Sequence[RunModel]) -> None:
        self.recipe = recipe
        self.folder = folder
        self.models = models
        self.tokenizer = load_tokenizer(folder)
        self.shards = load_shards(folder, self.tokenizer)
        self.device = choose_device()
        self.precision = choose_precision(recipe.pretrain.precision, self.device)

    def results(self) -> dict[str, Any]:
        """All of results.json but the time it took."""
        texts: dict[tuple[str, str], list[TextLoss]] = {}
        answers: dict[str, list[TextLoss]] = {}
        described: dict[str, dict[str, Any]] = {}
        pairs = self._pairs()
        for measured in self.models:
            model = self._load(measured)
            described[measured.stage] = _described(measured, model)
            for domain, passages in self._texts(measured, model):
                texts[domain, measured.stage] = passages
            if pairs and self._when(measured.stage):
                answers[measured.stage] = self._answers(model, pairs)
            del model
        return {
            "format": FORMAT,
            "machine": describe_machine(self.device),
            "precision": self.precision.name,
            "models": described,
            "perplexity": [
                {
                    "model": model,
                    "domain": domain,
                    **loss_values(passages, texts.get((domain, self._start_of(model)))),
                }
                for (domain, model), passages in texts.items()
            ],
            "responses": [
                {
                    "model": model,
                    "when": self._when(model),
                    **loss_values(passages, answers.get(self._start_of(model))),
                }
                for model, passages in answers.items()
            ],
            **self._chat(),
        }

    def _start_of(self, stage: str) -> str:
        """The stage whose model another one began with; "" for one that started from scratch."""
        before = "distill" if self.recipe.distill else "pretrain"
        return {"distill": "pretrain", "merge": before}.get(stage, "")

    def _load(self, measured: RunModel) -> Any:
        if measured.stage == "teacher":
            context, revision = _context(self.recipe), teacher_revision(self.recipe)
            model = load_teacher_model(measured.source, torch.float32, context, revision)
            return model.to(self.device)
        return load_model(measured.source, dtype="float32", device=self.device)

    def _texts(self, measured: RunModel, model: Any) -> Iterator[tuple[str, list[TextLoss]]]:
        """The losses of each domain's passages."""
        limit = self.recipe.evaluate.tokens_per_domain
        for domain, batches in _domains(self.shards, _context(self.recipe), limit, self._across):
            total = batches.batches_per_epoch * batches.tokens_per_batch
            with progress_bar(f"{measured.stage} {domain}", total, "tok") as bar:
                yield (
                    domain,
                    measure_passages(
                        model,
                        _every(batches, bar),
                        self.tokenizer.token_bytes(),
                        precision=self.precision,
                        attend_across_documents=self._across,
                    ),
                )

    @property
    def _across(self) -> bool:
        return self.recipe.pretrain.attend_across_documents

    def _when(self, stage: str) -> str:
        """Whether a model is the one before or after fine-tuning, or neither."""
        if stage == "merge":
            return "after sft"
        return "before sft" if stage == self._start_of("merge") else ""

    def _pairs(self) -> Sequence[Pair]:
        """The held-out pairs that are measured."""
        return spread(self._held_out, self.recipe.evaluate.pairs)

    @cached_property
    def _held_out(self) -> Sequence[Pair]:
        """Pairs that fine-tuning held out, as far as any are wanted."""
        sft, sources = self.recipe.sft, _pair_sources(self.recipe)
        if not (sft and sources):
            return []
        return split_pairs(
            sources,
            data_root=self.recipe.data_root,
            validation_fraction=sft.validation_fraction,
            seed=self.recipe.seed,
        ).validation

    def _samples(self, llm: LLM) -> list[Sample]:
        """Answers to the recipe's prompts, else to held-out ones of the user's own pairs, else to
        the primer's; of a model without fine-tuning, continuations of validation texts."""
        most = self.recipe.evaluate.max_tokens
        if prompts := self.recipe.evaluate.prompts:
            questions = [Question(prompt) for prompt in prompts]
        elif self.recipe.sft is None:
            return take_samples(
                beginnings_of_texts(validation_texts(self.shards, self.tokenizer)),
                greedy_continuations(llm, max_tokens=most),
            )
        else:
            own = _own_sources(self.recipe)
            pairs = [pair for pair in self._held_out if pair.id.split("/")[0] in own]
            questions = questions_of_pairs(pairs) or questions_of_facts(facts())
        return take_samples(questions, greedy_answers(llm, max_tokens=most, label="samples"))

    def _answers(self, model: Any, pairs: Sequence[Pair]) -> list[TextLoss]:
        return measure_responses(
            model,
            pairs,
            self.tokenizer,
            context=_context(self.recipe),
            batch_size=ROWS_AT_ONCE,
            precision=self.precision,
        )

    def _chat(self) -> dict[str, Any]:
        """Facts, manners, arithmetic and samples of the final model."""
        section, final = self.recipe.evaluate, final_model(self.recipe, self.folder)
        with quiet_library():
            llm = LLM.from_pretrained(final.source, dtype="float32", device=self.device)
        asked: dict[str, Sequence[Any]] = {}
        if section.facts:
            ask = greedy_answers(llm, max_tokens=section.max_tokens, label="facts")
            asked["facts"] = ask_facts(facts(), ask)
        if section.manners:
            ask = greedy_answers(llm, max_tokens=section.max_tokens, label="manners")
            asked["manners"] = ask_manners(list(held_out_conversations()), ask)
        if section.arithmetic:
            examples = held_out_examples(section.arithmetic, self.recipe.seed)
            ask = greedy_answers(llm, max_tokens=section.max_tokens, label="arithmetic")
            asked["arithmetic"] = ask_arithmetic(examples, ask)
        asked["samples"] = self._samples(llm)
        return {
            name: {"model": final.stage, "answers": [asdict(answer) for answer in answers]}
            for name, answers in asked.items()
        }


def _own_sources(recipe: Recipe) -> set[str]:
    """Names of the sources of pairs that do not ship with the package."""
    return {s.name for s in recipe.sft.sources if not s.corpus} if recipe.sft else set()


def loss_values(
    passages: Sequence[TextLoss], before: Sequence[TextLoss] | None = None
) -> dict[str, Any]:
    """A loss for results.json; what is not finite is null, which JSON can hold.

    Args:
        passages: their losses.
        before: the same passages' with the model that this one began with.
    """
    loss = sum(passages, TextLoss())
    values = {
        "loss": loss.mean,
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte,
        "tokens": loss.tokens,
        "bytes": loss.bytes,
    }
    found: dict[str, Any] = {
        n: value if value - value == 0 else None for n, value in values.items()
    }
    found["passages"] = len(passages)
    if before and math.isfinite(loss.nats - sum(before, TextLoss()).nats):
        found["change"] = asdict(_change(before, passages))
    return found


def _change(before: Sequence[TextLoss], after: Sequence[TextLoss]) -> Difference:
    """By how many nats a token the loss has changed, with the interval over the passages."""
    differences = [new.nats - old.nats for old, new in zip(before, after, strict=True)]
    counts = [new.tokens for new in after]
    return bootstrap_mean_change(differences, counts, generator=np.random.default_rng(0))


def _domains(
    shards: Shards, context: int, limit: int, across: bool
) -> Iterator[tuple[str, ValidationBatches]]:
    """Every source that has validation text."""
    for source, stream in shards.validation.items():
        if stream.tokens > 1:
            yield (
                source,
                ValidationBatches(
                    shards.validation,
                    context=context,
                    batch_size=ROWS_AT_ONCE,
                    max_tokens=limit,
                    source=source,
                    isolate_documents=not across,
                ),
            )


def _every(batches: ValidationBatches, bar: Any) -> Iterator[Batch]:
    for index in range(batches.batches_per_epoch):
        yield batches.batch(index)
        bar.update(batches.tokens_per_batch)


def _described(measured: RunModel, model: torch.nn.Module) -> dict[str, Any]:
    return {
        "folder": measured.shown,
        "fingerprint": measured.result,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _headline(results: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a manifest: perplexities by model, and the shares that are right."""
    perplexity: dict[str, dict[str, Any]] = {}
    for row in results["perplexity"]:
        perplexity.setdefault(row["model"], {})[row["domain"]] = row["perplexity"]
    accuracy = {
        name: {"right": sum(a["right"] for a in answers), "asked": len(answers)}
        for name in ("facts", "manners", "arithmetic")
        if (answers := results.get(name, {}).get("answers"))
    }
    responses = {row["when"]: row["perplexity"] for row in results["responses"]}
    return {
        "perplexity": perplexity,
        "response_perplexity": responses,
        **accuracy,
        "seconds": results["seconds"],
    }


def _context(recipe: Recipe) -> int:
    return recipe.model.max_position_embeddings
