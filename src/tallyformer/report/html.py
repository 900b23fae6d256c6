"""One HTML page that needs nothing else: a title, cards, and sections of tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from tallyformer.report.plots import LIGHT, Plot
from tallyformer.report.tables import Table

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Card:
    """What a page is about: its name, what came of it, and what it is."""

    name: str
    description: str
    findings: list[tuple[str, str]]
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class PlotGroup:
    """Plots under one heading, some of them folded away."""

    name: str
    plots: list[Plot]
    folded: list[Plot]


@dataclass(frozen=True)
class Reply:
    """One run's answer; `right` is None where nobody judges it."""

    run: str
    answer: str
    right: bool | None = None


@dataclass(frozen=True)
class Asked:
    """A question with the answers of all runs that were asked it."""

    question: str
    replies: list[Reply]
    expected: str = ""


@dataclass(frozen=True)
class AnswerGroup:
    """Judged answers of one topic or kind."""

    title: str
    asked: list[Asked]


@dataclass(frozen=True)
class Prompt:
    """What was written to one prompt, early to late, each text with the step (and run) it is of."""

    text: str
    written: list[tuple[str, str]]
    expected: str = ""


@dataclass(frozen=True)
class PromptGroup:
    """Prompts of one training; `open` unless it is folded away."""

    name: str
    prompts: list[Prompt]
    open: bool


@dataclass(frozen=True)
class Text:
    """A long text that is folded away under a title."""

    title: str
    body: str


@dataclass(frozen=True)
class Part:
    """A section of the page; `missing` says what would fill it if it is empty.

    `folded` tables and all questions with their answers are folded away.
    """

    id: str
    title: str
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    curves: Sequence[PlotGroup] = ()
    samples: Sequence[Asked] = ()
    answers: Sequence[AnswerGroup] = ()
    written: Sequence[PromptGroup] = ()
    texts: Sequence[Text] = ()
    absent: str = ""

    @property
    def missing(self) -> str:
        """`absent` if there is nothing else to show."""
        shown = (self.tables, self.curves, self.samples, self.answers, self.written, self.texts)
        return "" if any(shown) else self.absent


def page_html(
    kind: str,
    title: str,
    *,
    cards: Sequence[Card],
    notes: Sequence[str],
    sections: Sequence[Part],
) -> str:
    """The page as text. Everything but the plots is escaped.

    Args:
        kind: what page this is, above its title.
        title: of the page.
        cards: side by side below the title.
        notes: what has to be known to read the page.
        sections: in order.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tallyformer.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )
    return environment.get_template(TEMPLATE).render(
        kind=kind, title=title, series=LIGHT, cards=cards, notes=notes, sections=sections
    )
