"""What the models of a run answered, as its evaluation wrote it down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tallyformer.artifacts.run_folder import RESULTS
from tallyformer.monitor.inside import Inside, Unreadable
from tallyformer.monitor.stages import checked_object
from tallyformer.monitor.words import shown_text

_MOST_BYTES = 32 << 20
_MOST_SAMPLES = 50
_LONGEST = 4000
"""Characters of a question or an answer."""


@dataclass(frozen=True)
class SampleLook:
    """A question, the model's answer, and what the data answer; "" where they do not."""

    question: str
    answer: str
    expected: str


@dataclass(frozen=True)
class Samples:
    """All of a run, and which model they are of; `problem` says why there are none."""

    model: str
    samples: list[SampleLook]
    problem: str = ""


def read_samples(inside: Inside, run: str) -> Samples:
    """The samples of a run; none before its evaluation."""
    try:
        values = checked_object(inside.text_of(run, "evaluate", RESULTS, most=_MOST_BYTES))
    except FileNotFoundError:
        return Samples("", [])
    except (Unreadable, ValueError) as reason:
        return Samples("", [], f"evaluate/{RESULTS}: {reason}")
    found = values.get("samples")
    answers = found.get("answers") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(answers, list):
        return Samples("", [])
    return Samples(
        shown_text(found.get("model"), 100),
        [_sample(a) for a in answers[:_MOST_SAMPLES] if isinstance(a, dict)],
    )


def _sample(answer: dict[str, Any]) -> SampleLook:
    names = ("question", "answer", "expected")
    return SampleLook(*(shown_text(answer.get(name), _LONGEST) for name in names))
