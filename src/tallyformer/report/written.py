"""What a model wrote while it trained: per prompt from the first validation to the last."""

from __future__ import annotations

from collections.abc import Sequence

from tallyformer.report.html import Prompt, PromptGroup
from tallyformer.report.names import short_names
from tallyformer.report.run_data import Curves, RunData
from tallyformer.training.sample_lines import WrittenSample

MOST_STEPS = 5
"""Validations that are shown of each prompt and run: the first, the last, some between."""


def written_groups(runs: Sequence[RunData]) -> list[PromptGroup]:
    """The samples of every training that wrote any, in the order of the pipeline.

    The last training is unfolded: its model is the one that is meant to be used.
    """
    names = list(dict.fromkeys(c.name for run in runs for c in run.curves if c.written))
    return [PromptGroup(name, _prompts(name, runs), open=name == names[-1]) for name in names]


def _prompts(training: str, runs: Sequence[RunData]) -> list[Prompt]:
    """Each prompt once, in its first order, with what each run's model made of it."""
    labels = short_names([run.name for run in runs]) if len(runs) > 1 else [""]
    found: dict[str, Prompt] = {}
    for label, run in zip(labels, runs, strict=True):
        for prompt, samples in _by_prompt(_of(run, training)).items():
            into = found.setdefault(prompt, Prompt(prompt, [], samples[-1].expected.strip()))
            into.written.extend((_when(s.step, label), s.text.strip()) for s in _spread(samples))
    return list(found.values())


def _of(run: RunData, training: str) -> Sequence[WrittenSample]:
    curves: Curves | None = next((c for c in run.curves if c.name == training), None)
    return curves.written if curves else ()


def _by_prompt(samples: Sequence[WrittenSample]) -> dict[str, list[WrittenSample]]:
    """Samples by prompt; a prompt that a recipe has twice counts once at a step."""
    found: dict[str, dict[int, WrittenSample]] = {}
    for sample in samples:
        found.setdefault(sample.prompt, {})[sample.step] = sample
    return {prompt: list(by_step.values()) for prompt, by_step in found.items()}


def _spread(samples: Sequence[WrittenSample]) -> list[WrittenSample]:
    """At most `MOST_STEPS` of them, the first and the last always, evenly between."""
    if len(samples) <= MOST_STEPS:
        return list(samples)
    last = len(samples) - 1
    return [samples[round(i * last / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]


def _when(step: int, run: str) -> str:
    return f"step {step:,}, {run}" if run else f"step {step:,}"
