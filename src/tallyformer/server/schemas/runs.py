"""Training runs: the list, one of them, and what is new of a curve."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tallyformer.monitor.curve import CurveNews
from tallyformer.monitor.inside import Advice
from tallyformer.monitor.runs import RunDetails, RunList, RunLook, RunState
from tallyformer.monitor.samples import SampleLook
from tallyformer.monitor.stages import StageLook, State
from tallyformer.monitor.written import WrittenLook


class _Seen(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RunCard(_Seen):
    """A run at a glance; `touched`, in seconds since 1970, is when it was last begun.

    `advice` is the kind of thing that helps against `problem`.
    """

    id: str
    state: RunState
    problem: str
    advice: Advice | None
    touched: float
    stage: str | None
    finished: list[str]

    @classmethod
    def of(cls, look: RunLook) -> RunCard:
        """The card of a run."""
        return cls.model_validate(look)


class RunCards(BaseModel):
    """Runs, the newest first; `left_out` more are there, and a search finds them."""

    object: Literal["list"] = "list"
    data: list[RunCard]
    left_out: int

    @classmethod
    def of(cls, found: RunList) -> RunCards:
        """The cards of a list."""
        return cls(data=[RunCard.of(look) for look in found.runs], left_out=found.left_out)


class RunFact(_Seen):
    """A number that a stage has measured.

    `of` is out of how many, of right answers; `about` is the domain of the texts, or "".
    """

    name: str
    value: float
    of: float | None
    about: str


class RunStage(BaseModel):
    """A stage; times are seconds, `began` and `ended` since 1970; `progress` is from 0 to 1."""

    stage: str
    state: State
    problem: str
    began: float | None
    ended: float | None
    seconds: float | None
    progress: float | None
    facts: list[RunFact]

    @classmethod
    def of(cls, look: StageLook) -> RunStage:
        """A stage as it was seen."""
        return cls(
            stage=look.stage,
            state=look.state,
            problem=look.problem,
            began=look.began,
            ended=look.ended,
            seconds=look.seconds,
            progress=look.progress,
            facts=[RunFact.model_validate(fact) for fact in look.facts],
        )


class RunSample(_Seen):
    """A question, the model's answer, and what the data answer; "" where they do not."""

    question: str
    answer: str
    expected: str

    @classmethod
    def of(cls, look: SampleLook) -> RunSample:
        """A sample as it was read."""
        return cls.model_validate(look)


class RunSamples(BaseModel):
    """Answers of one model of a run; `problem` says why there are none."""

    model: str
    data: list[RunSample]
    problem: str


class RunWritten(_Seen):
    """What a model in training wrote at the validation after `step` optimizer steps.

    `steps` are those of all validations; a sample's question is what the model was given.
    """

    steps: list[int]
    step: int | None
    samples: list[RunSample]
    problem: str

    @classmethod
    def of(cls, look: WrittenLook) -> RunWritten:
        """What was read."""
        return cls.model_validate(look)


class RunReport(BaseModel):
    """An HTML report; `address` opens it for a while, without a key."""

    name: str
    address: str


class Run(RunCard):
    """All of a run but its curves; `curves` names those that there are."""

    name: str
    description: str
    stages: list[RunStage]
    curves: list[str]
    samples: RunSamples
    reports: list[RunReport]

    @classmethod
    def seen(cls, details: RunDetails, reports: list[RunReport]) -> Run:
        """A run as it was seen."""
        samples = details.samples
        return cls(
            **RunCard.of(details.look).model_dump(),
            name=details.name,
            description=details.description,
            stages=[RunStage.of(stage) for stage in details.stages],
            curves=details.curves,
            samples=RunSamples(
                model=samples.model,
                data=[RunSample.of(sample) for sample in samples.samples],
                problem=samples.problem,
            ),
            reports=reports,
        )


class RunColumn(_Seen):
    """Means of buckets; the lowest and highest where a bucket stands for several lines."""

    name: str
    means: list[float | None]
    lows: list[float | None] | None
    highs: list[float | None] | None


class RunCurvePart(_Seen):
    """Buckets of `width` lines each, from the one with the number `start` on."""

    kind: Literal["train", "validation"]
    start: int
    width: int
    steps: list[int]
    columns: list[RunColumn]


class RunCurve(_Seen):
    """What a reader does not have.

    `fresh`: what it has is void. `left`: bytes that the next request reads. `skipped`: lines that
    are none of metrics. `problem`: why the file cannot be read.
    """

    cursor: str
    fresh: bool
    skipped: int
    left: int
    problem: str
    parts: list[RunCurvePart]

    @classmethod
    def of(cls, news: CurveNews) -> RunCurve:
        """What was read."""
        return cls.model_validate(news)
