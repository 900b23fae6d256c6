"""How much text a run will have: counted, sampled, or as the recipe limits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource
from tallyformer.planning.source_sample import SampledSource, sample_sources
from tallyformer.preflight.foreseen import SourceSize, prepared_sizes
from tallyformer.stages import prepare, tokenizer
from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.loading import FILES

_SAMPLE_BYTES = 1_000_000
_SAMPLE_BYTES_PER_ID = 100
"""A sample of this size for each id of a vocabulary supports learning that vocabulary."""
_GPT2_IDS, _BYTES_PER_TOKEN = 50_260, 4.4
"""GPT-2's vocabulary with the control tokens, and what one of its ids stands for in English."""


@dataclass(frozen=True)
class PlannedInputs:
    """What is known of a run's texts.

    Attributes:
        short: the recipe with its text sources replaced by samples, for a rehearsal; None if there
            is nothing to rehearse on.
        tokenizer: None if it cannot be had now.
        vocabulary: number of ids.
        sources: sizes of the text sources.
        exact: sizes come from finished stages; otherwise they are estimates.
        pairs_are_there: whether the pairs of fine-tuning can be read now.
        notes: what is assumed, and why.
    """

    short: Recipe | None
    tokenizer: Tokenizer | None
    vocabulary: int
    sources: list[SourceSize]
    exact: bool
    pairs_are_there: bool
    notes: list[str]


def planned_inputs(
    recipe: Recipe, folder: RunFolder, place: Path, run: RunFolder, say: Callable[[str], None]
) -> PlannedInputs:
    """Find out how much text there will be.

    Args:
        folder: the real run's; only read.
        place: an empty folder for samples.
        run: gets the tokenizer and the shards for a rehearsal.
        say: told what is being done.

    Raises:
        DataError, TokenizerError: an input is missing or cannot be used.
    """
    hub, notes = Hub(), list[str]()
    pairs = recipe.sft.sources if recipe.sft else ()
    absent_pairs = [pair.name for pair in pairs if _absent(pair, recipe, hub, notes)]
    pairs_are_there = not absent_pairs
    if all(folder.is_finished(stage) for stage in ("tokenizer", "prepare")):
        for stage in ("tokenizer", "prepare"):
            run.stage(stage).symlink_to(folder.stage(stage).absolute())
        made = Tokenizer.from_pretrained(run.stage("tokenizer"))
        sizes = prepared_sizes(run)
        return PlannedInputs(recipe, made, made.vocab_size, sizes, True, pairs_are_there, notes)
    say("reading and tokenising a sample of the sources")
    absent = {s.name for s in recipe.prepare.sources if _absent(s, recipe, hub, notes)}
    has_tokenizer = _has_tokenizer(recipe, hub, notes)
    there = tuple(s for s in recipe.prepare.sources if s.name not in absent)
    section = recipe.tokenizer
    if not there or not has_tokenizer:
        vocabulary = section.vocab_size if section.kind == "train" else _GPT2_IDS
        samples = _samples(_with(recipe, there), place) if there else []
        texts = {sample.name: sample for sample in samples}
        sources = [_assumed(s, texts.get(s.name), recipe) for s in recipe.prepare.sources]
        return PlannedInputs(None, None, vocabulary, sources, False, pairs_are_there, notes)
    samples = _samples(_with(recipe, there), place)
    short = _on_samples(_with(recipe, there), samples)
    tokenizer.run(short, run)
    prepare.run(short, run)
    counted = run.manifest("prepare").metrics["sources"]
    held_out = recipe.prepare.validation_fraction
    known = {s.name: _scaled(s, counted[s.name], held_out) for s in samples}
    sources = [known.get(s.name) or _assumed(s, None, recipe) for s in recipe.prepare.sources]
    made = Tokenizer.from_pretrained(run.stage("tokenizer"))
    whole = short if not absent else None
    return PlannedInputs(whole, made, made.vocab_size, sources, False, pairs_are_there, notes)


def _absent(section: TextSource | PairSource, recipe: Recipe, hub: Hub, notes: list[str]) -> bool:
    """Whether a data set is on the hub and the hub does not deliver it."""
    name = section.dataset
    if name is None or (Path(recipe.data_root) / name).exists() or Path(name).exists():
        return False
    reason = hub.problem(name, section.revision, kind="dataset")
    if reason and isinstance(section, TextSource):
        notes.append(
            f"source {section.name!r}: {reason}. It is taken for as large as its limits in the "
            f"recipe allow, at {_BYTES_PER_TOKEN} bytes a token"
        )
    elif reason:
        notes.append(f"source {section.name!r}: {reason}. How many pairs it has is not known")
    return reason is not None


def _has_tokenizer(recipe: Recipe, hub: Hub, notes: list[str]) -> bool:
    section = recipe.tokenizer
    if section.kind == "train" or Path(recipe.locate(section.source, section.revision)).is_dir():
        return True
    reason = hub.problem(section.source, section.revision, kind="model", cached=FILES[:2])
    if reason:
        notes.append(f"tokenizer {section.source!r}: {reason}. {_GPT2_IDS:,} ids are assumed")
    return reason is None


def _with(recipe: Recipe, sources: tuple[TextSource, ...]) -> Recipe:
    prepare = recipe.prepare.model_copy(update={"sources": sources})
    return recipe.model_copy(update={"prepare": prepare})


def _samples(recipe: Recipe, place: Path) -> list[SampledSource]:
    size = max(_SAMPLE_BYTES, _SAMPLE_BYTES_PER_ID * recipe.tokenizer.vocab_size)
    return sample_sources(recipe, place, size)


def _on_samples(recipe: Recipe, samples: list[SampledSource]) -> Recipe:
    """The recipe with its text sources replaced by their samples."""
    sources = tuple(
        TextSource(name=s.name, paths=(str(s.file.absolute()),), weight=section.weight)
        for s, section in zip(samples, recipe.prepare.sources, strict=True)
    )
    prepare = recipe.prepare.model_copy(update={"sources": sources, "workers": 1})
    return recipe.model_copy(update={"prepare": prepare})


def _scaled(sample: SampledSource, counts: Mapping[str, Any], held_out: float) -> SourceSize:
    if sample.text_bytes is None or sample.documents is None:
        return SourceSize(sample.name, None, None, None)
    tokens = sample.text_bytes * counts["tokens"]["total"] / max(1, counts["bytes"]["total"])
    return _split(sample.name, sample.documents, tokens, held_out)


def _assumed(section: TextSource, sample: SampledSource | None, recipe: Recipe) -> SourceSize:
    """A source that is not tokenised, by its sample or its limits."""
    documents = sample.documents if sample else section.max_documents
    text_bytes = sample.text_bytes if sample else section.max_bytes
    tokens = None if text_bytes is None else text_bytes / _BYTES_PER_TOKEN
    return _split(section.name, documents, tokens, recipe.prepare.validation_fraction)


def _split(name: str, documents: int | None, tokens: float | None, held_out: float) -> SourceSize:
    def part(whole: float | None, share: float) -> int | None:
        return None if whole is None else round(whole * share)

    return SourceSize(
        name, part(documents, 1 - held_out), part(tokens, 1 - held_out), part(tokens, held_out)
    )
