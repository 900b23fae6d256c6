"""What a run's results and recipe must hold so that a report can show them.

Keys beyond that are let through, and what is not there is not shown.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Change(_Part):
    value: float
    low: float
    high: float


class _Loss(_Part):
    model: str
    perplexity: float | None = None
    bits_per_byte: float | None = None
    tokens: int | None = None
    passages: int | None = None
    change: _Change | None = None


class _Text(_Loss):
    domain: str


class _Response(_Loss):
    when: str


class _Sample(_Part):
    question: str
    answer: str
    expected: str = ""


class _Judged(_Part):
    question: str
    answer: str
    expected: str
    right: bool


class _Fact(_Judged):
    topic: str


class _Example(_Judged):
    kind: str


class _Facts(_Part):
    model: str = ""
    answers: list[_Fact] = []


class _Examples(_Part):
    model: str = ""
    answers: list[_Example] = []


class _Samples(_Part):
    model: str = ""
    answers: list[_Sample] = []


class _Machine(_Part):
    gpu: str | None = None
    processor: str | None = None
    cores: int | None = None
    memory_gb: float | None = None


class _Model(_Part):
    folder: str | None = None
    parameters: int | None = None
    fingerprint: str | None = None


class _Results(_Part):
    machine: _Machine = _Machine()
    models: dict[str, _Model] = {}
    perplexity: list[_Text] = []
    responses: list[_Response] = []
    facts: _Facts = _Facts()
    manners: _Examples = _Examples()
    arithmetic: _Examples = _Examples()
    samples: _Samples = _Samples()


class _Sizes(_Part):
    max_position_embeddings: int | None = None


class _Training(_Part):
    weights: dict[str, float] | None = None


class _Teacher(_Part):
    model: _Sizes | None = None
    train: _Training | None = None


class _Source(_Part):
    name: str
    weight: float | None = None


class _Prepare(_Part):
    sources: list[_Source] | None = None


class _Recipe(_Part):
    model: _Sizes | None = None
    prepare: _Prepare | None = None
    pretrain: _Training | None = None
    teacher: _Teacher | None = None
    distill: _Training | None = None


def check_results(values: Any) -> None:
    """Check the types of all values of results.json that a report shows.

    Raises:
        ValueError: one is missing or of another type; the message is its place and the reason.
    """
    _check(_Results, values)


def check_recipe_shape(values: Any) -> None:
    """The same of a recipe, which need not be one that this version would run."""
    _check(_Recipe, values)


def _check(kind: type[_Part], values: Any) -> None:
    try:
        kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
