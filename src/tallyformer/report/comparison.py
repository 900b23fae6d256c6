"""What two runs have in common, which decides what of them may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallyformer.report.run_data import RunData

_VOCABULARY = "tokenizer.json"
_NOT_THE_TEXT = {"shard_tokens", "workers"}
"""Keys of `prepare` that leave the text of both splits as it is."""


@dataclass(frozen=True)
class Comparison:
    """What is the same in all runs of a report; one run alone has everything in common.

    Attributes:
        vocabulary: ids mean the same, so a perplexity is of the same events.
        texts: the held-out texts are the same.
        pairs: the held-out pairs are the same.
    """

    vocabulary: bool = True
    texts: bool = True
    pairs: bool = True

    @classmethod
    def of(cls, runs: Sequence[RunData]) -> Comparison:
        """Compare the runs' manifests; what a run does not record is not the same."""
        if len(runs) < 2:
            return cls()
        return cls(
            _all_equal([_vocabulary(run) for run in runs]),
            _all_equal([_texts(run) for run in runs]),
            _all_equal([_pairs(run) for run in runs]),
        )

    def notes(self) -> list[str]:
        """What is not compared, and why."""
        found = []
        if not self.vocabulary:
            found.append(
                "The runs' vocabularies differ (or are not recorded), so their perplexities count "
                "different events and are not compared; bits per byte are."
            )
        if not self.texts:
            found.append(
                "The runs' validation texts differ (or are not recorded), so no figure of text is "
                "compared."
            )
        if not self.pairs:
            found.append(
                "The runs' held-out pairs differ (or are not recorded), so no figure of answers is "
                "compared."
            )
        return found


def control_note(runs: Sequence[RunData]) -> str:
    """Distillation beside its control, if one of two runs is that of the other; else ""."""
    for run, other in (runs, runs[::-1]) if len(runs) == 2 else ():
        if is_control(other, of=run):
            with_teacher, without = (
                of_run.metrics("distill")["validation_perplexity"] for of_run in (run, other)
            )
            return (
                f"{other.name} is the control of {run.name}: the same distillation without the "
                f"teacher (alpha 0). Perplexity of validation text with the teacher "
                f"{with_teacher:,.2f}, without {without:,.2f}. That is one run of each; how much "
                "another seed changes is not measured."
            )
    return ""


def is_control(run: RunData, *, of: RunData) -> bool:
    """Whether `run` distilled the same student in the same way, but without a teacher."""
    own, other = (_phases(r) for r in (run, of))
    if not own or any(phase.get("alpha") for phase in own):
        return False
    if not any(phase.get("alpha") for phase in other):
        return False
    same_start = all(
        run.manifests["distill"].inputs.get(name) == of.manifests["distill"].inputs.get(name)
        for name in ("pretrain", "prepare", "tokenizer")
    )
    return same_start and [_without_teacher(p) for p in own] == [_without_teacher(p) for p in other]


def _phases(run: RunData) -> list[Mapping[str, Any]]:
    if "distill" not in run.manifests:
        return []
    found: list[Mapping[str, Any]] = (
        run.manifests["distill"].config.get("distill", {}).get("phases")
    )
    return found or []


def _without_teacher(phase: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in phase.items() if name not in ("alpha", "temperature")}


def _vocabulary(run: RunData) -> Any:
    found = run.manifests.get("tokenizer")
    return found and found.files.get(_VOCABULARY, {}).get("sha256")


def _texts(run: RunData) -> Any:
    found = run.manifests.get("prepare")
    if found is None:
        return None
    config = {k: v for k, v in found.config.items() if k not in _NOT_THE_TEXT}
    config["sources"] = [{**s, "weight": None} for s in config.get("sources", ())]
    return config, found.seed, _sources(found.inputs), _amount(run, "tokens_per_domain")


def _pairs(run: RunData) -> Any:
    found = run.manifests.get("sft")
    if found is None:
        return None
    fraction = found.config.get("validation_fraction")
    return fraction, found.seed, _sources(found.inputs), _amount(run, "pairs")


def _amount(run: RunData, key: str) -> Any:
    """How much of the held-out data `evaluate` reads."""
    return run.manifests["evaluate"].config.get(key) if "evaluate" in run.manifests else None


def _sources(inputs: Mapping[str, str]) -> dict[str, str]:
    """Checksums of what was read from outside the run; a stage's name has no slash."""
    return {name: value for name, value in inputs.items() if "/" in name}


def _all_equal(values: Sequence[Any]) -> bool:
    return values[0] is not None and all(value == values[0] for value in values)
