"""The runs of a folder: which there are, how far they are, and what they have written.

No name that somebody asks for becomes a path: it is looked up among the names that are there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tallyformer.artifacts.lock import LOCK, is_held
from tallyformer.artifacts.manifest import MANIFEST
from tallyformer.artifacts.run_folder import CLAIM, FOLDER_OF_STAGE, METRICS, RECIPE
from tallyformer.artifacts.stages import STAGES, TRAINING_STAGES
from tallyformer.config.plain_yaml import MOST_BYTES, read_plain_yaml
from tallyformer.monitor.curve import Curve, CurveNews
from tallyformer.monitor.inside import Advice, Inside, Unreadable
from tallyformer.monitor.look import Version, version_of
from tallyformer.monitor.samples import Samples, read_samples
from tallyformer.monitor.stages import MOST_KEPT, StageLook, StageReader, progress
from tallyformer.monitor.words import shown_name, shown_text
from tallyformer.monitor.written import WrittenLook, WrittenReader

RunState = Literal["running", "finished", "stopped", "damaged"]
MOST_LISTED = 200
"""Runs that a list shows; a search finds the others."""
_MOST_CURVES = 32
"""Files whose curves are kept in memory, those that were asked for last."""
_MOST_PHASES = 50
_MOST_REPORTS = 20
_REPORT_BYTES = 64 << 20
_FOLDERS = {FOLDER_OF_STAGE.get(stage, stage) for stage in STAGES}
_MARKS = {RECIPE, LOCK, *_FOLDERS}
"""A folder with none of these is not a run."""


@dataclass(frozen=True)
class RunEntry:
    """A folder that is a run, or cannot be looked into.

    Attributes:
        folder: its name on the disk.
        id: the same as text, which requests name it by.
        touched: seconds since 1970, when it was last begun.
        problem: why it cannot be looked into; "" if it can.
        advice: what helps then.
    """

    folder: str
    id: str
    touched: float
    problem: str = ""
    advice: Advice | None = None


@dataclass(frozen=True)
class RunLook:
    """A run at a glance.

    Attributes:
        problem: the first thing that is not as it should be; "" if nothing is.
        advice: what helps against it; None if nothing is wrong.
        stage: the one that runs, or was stopped.
        finished: the stages that are.
    """

    id: str
    state: RunState
    problem: str
    advice: Advice | None
    touched: float
    stage: str | None
    finished: list[str]
    stages: list[StageLook]


@dataclass(frozen=True)
class RunDetails:
    """All of a run but its curves.

    Attributes:
        name, description: as its recipe has them.
        curves: names of what has metrics, in the order of the stages; "distill:phase-1".
        reports: names of the HTML files that it has.
    """

    look: RunLook
    name: str
    description: str
    stages: list[StageLook]
    curves: list[str]
    samples: Samples
    reports: list[str]


@dataclass(frozen=True)
class RunList:
    """Runs, the newest first; so many more there are that are not listed."""

    runs: list[RunLook]
    left_out: int


class RunsFolder:
    """A folder of runs.

    Args:
        path: the folder, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._inside = Inside(path)
        self._stages = StageReader(self._inside)
        self._written = WrittenReader(self._inside)
        self._recipe = functools.lru_cache(MOST_KEPT)(self._recipe_now)
        self._curves: OrderedDict[tuple[str, ...], Curve] = OrderedDict()
        self._lock = threading.Lock()

    def listed(self, search: str = "", most: int = MOST_LISTED) -> RunList:
        """The runs whose name holds these letters.

        Raises:
            Unreadable: the folder cannot be read.
        """
        found = [entry for entry in self._entries() if search.lower() in entry.id.lower()]
        found.sort(key=lambda entry: (-entry.touched, entry.id))
        return RunList([self._look(entry) for entry in found[:most]], max(0, len(found) - most))

    def details(self, run: str) -> RunDetails | None:
        """One run; None if there is none of this name."""
        entry = self._entry(run)
        if entry is None:
            return None
        look, folder = self._look(entry), entry.folder
        if entry.problem:
            return RunDetails(look, "", "", [], [], Samples("", []), [])
        recipe, *_ = self._recipe_of(folder)
        curves = list(self._curve_files(folder))
        return RunDetails(
            look=look,
            name=shown_text(recipe.get("name"), 200),
            description=shown_text(recipe.get("description"), 2000),
            stages=[self._seen(folder, stage, recipe, curves) for stage in look.stages],
            curves=curves,
            samples=read_samples(self._inside, folder),
            reports=self._reports(folder),
        )

    def curve(self, run: str, curve: str, cursor: str = "") -> CurveNews | None:
        """What is new of one curve; None if there is none of this name."""
        entry = self._entry(run)
        path = self._curve_files(entry.folder).get(curve) if entry and not entry.problem else None
        return self._curve(path).look(cursor) if path else None

    def written(self, run: str, curve: str, step: int | None = None) -> WrittenLook | None:
        """What the model of a curve wrote at a validation; None if there is no such curve."""
        entry = self._entry(run)
        path = self._curve_files(entry.folder).get(curve) if entry and not entry.problem else None
        return self._written.look(path[:-1], step) if path else None

    def report(self, run: str, report: str) -> bytes | None:
        """The text of a report; None if there is none of this name.

        Raises:
            Unreadable: it cannot be read, or is longer than any report of ours.
        """
        entry = self._entry(run)
        if entry is None or entry.problem or report not in self._reports(entry.folder):
            return None
        with contextlib.suppress(FileNotFoundError):
            return self._inside.text_of(entry.folder, *report.split("/"), most=_REPORT_BYTES)
        return None

    def _entry(self, run: str) -> RunEntry | None:
        try:
            name = next((name for name in self._names() if shown_name(name) == run), None)
        except Unreadable:
            return None
        return self._entry_of(name) if name is not None else None

    def _entries(self) -> Iterator[RunEntry]:
        for name in self._names():
            entry = self._entry_of(name)
            if entry is not None:
                yield entry

    def _names(self) -> list[str]:
        try:
            found = self._inside.names().names
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name[0] != ".")

    def _entry_of(self, folder: str) -> RunEntry | None:
        """None for what is not a run."""
        try:
            there = self._inside.names(folder)
        except FileNotFoundError:
            return None
        except Unreadable as reason:
            if not (self._inside.root / folder).is_dir():
                return None
            return RunEntry(folder, shown_name(folder), 0.0, str(reason), reason.advice)
        if _MARKS.isdisjoint(there.names):
            return None
        touched = there.modified
        with contextlib.suppress(FileNotFoundError, Unreadable):
            touched = max(touched, version_of(self._inside, folder, LOCK).modified)
        return RunEntry(folder, shown_name(folder), touched)

    def _look(self, entry: RunEntry) -> RunLook:
        if entry.problem:
            return RunLook(entry.id, "damaged", entry.problem, entry.advice, 0.0, None, [], [])
        in_use = self._in_use(entry.folder)
        stages = self._stages.stages(entry.folder, in_use=in_use)
        by_state = {stage.state: stage for stage in reversed(stages)}
        _, unread, helps = self._recipe_of(entry.folder)
        broken = next((stage for stage in stages if stage.problem), None)
        problem, advice = (broken.problem, broken.advice) if broken else (unread, helps)
        begun = by_state.get("running") or by_state.get("stopped")
        state: RunState = "stopped"
        if in_use:
            state = "running"
        elif problem:
            state = "damaged"
        elif stages[-1].state == "finished":
            state = "finished"
        finished = [stage.stage for stage in stages if stage.state == "finished"]
        stage = begun.stage if begun else None
        return RunLook(entry.id, state, problem, advice, entry.touched, stage, finished, stages)

    def _in_use(self, folder: str) -> bool:
        try:
            with self._inside.file(folder, LOCK) as lock:
                return is_held(lock.fileno())
        except (OSError, Unreadable):
            return False

    def _recipe_of(self, folder: str) -> tuple[dict[str, Any], str, Advice | None]:
        try:
            return self._recipe(folder, version_of(self._inside, folder, RECIPE))
        except FileNotFoundError:
            return {}, f"{RECIPE}: missing", "recipe"
        except Unreadable as reason:
            return {}, f"{RECIPE}: {reason}", reason.advice

    def _recipe_now(
        self, folder: str, version: Version
    ) -> tuple[dict[str, Any], str, Advice | None]:
        """The recipe's sections, what is wrong with it, and what helps."""
        try:
            text = self._inside.text_of(folder, RECIPE, most=MOST_BYTES).decode("utf-8")
            values = read_plain_yaml(text)
        except FileNotFoundError:  # deleted between two looks
            return {}, f"{RECIPE}: missing", "recipe"
        except Unreadable as reason:
            return {}, f"{RECIPE}: {reason}", reason.advice
        except UnicodeDecodeError as error:
            return {}, f"{RECIPE}: not UTF-8 at byte {error.start}", "recipe"
        except (yaml.YAMLError, ValueError, RecursionError):
            return {}, f"{RECIPE}: damaged (not YAML that a run writes)", "recipe"
        if not isinstance(values, dict):
            return {}, f"{RECIPE}: holds no sections", "recipe"
        return values, "", None

    def _seen(
        self, folder: str, look: StageLook, recipe: dict[str, Any], curves: list[str]
    ) -> StageLook:
        """A stage with how far it is, and whether the recipe has it at all."""
        if look.state == "to do" and recipe and _is_absent(look.stage, recipe):
            return replace(look, state="not in the recipe")
        mine = [c for c in curves if c.partition(":")[0] == look.stage]
        if look.state not in ("running", "stopped") or not mine:
            return look
        curve = self._curve(self._curve_files(folder)[mine[-1]])
        curve.look()
        return replace(look, progress=progress(look, curve.newest, len(mine) - 1))

    def _curve_files(self, folder: str) -> dict[str, tuple[str, ...]]:
        """Where the metrics of a run are, by the curve's name."""
        found: dict[str, tuple[str, ...]] = {}
        for stage in TRAINING_STAGES:
            try:
                names = self._inside.names(folder, stage).names
            except (FileNotFoundError, Unreadable):
                continue
            if METRICS in names:
                found[stage] = (folder, stage, METRICS)
            phases = sorted((n for n in names if n.startswith("phase-")), key=_natural)
            for phase in phases[:_MOST_PHASES]:
                with contextlib.suppress(FileNotFoundError, Unreadable):
                    version_of(self._inside, folder, stage, phase, METRICS)
                    found[f"{stage}:{shown_name(phase)}"] = (folder, stage, phase, METRICS)
        return found

    def _curve(self, path: tuple[str, ...]) -> Curve:
        with self._lock:
            curve = self._curves.pop(path, None) or Curve(lambda: self._inside.file(*path))
            self._curves[path] = curve
            while len(self._curves) > _MOST_CURVES:
                self._curves.popitem(last=False)
            return curve

    def _reports(self, folder: str) -> list[str]:
        found = []
        for place in ("evaluate", ""):
            names = (folder, place) if place else (folder,)
            with contextlib.suppress(FileNotFoundError, Unreadable):
                pages = sorted(n for n in self._inside.names(*names).names if n.endswith(".html"))
                found += [f"{place}/{name}" if place else name for name in pages]
        return [name for name in found if name.isprintable()][:_MOST_REPORTS]


def is_a_run(path: Path) -> bool:
    """Whether a folder is a run itself, or the folder of a stage, rather than one of runs."""
    return any(os.path.lexists(path / name) for name in (RECIPE, MANIFEST, CLAIM))


def _is_absent(stage: str, recipe: dict[str, Any]) -> bool:
    if stage == "teacher":
        teacher = recipe.get("teacher")
        return not (isinstance(teacher, dict) and teacher.get("model"))
    section = {"distill": "distill", "sft": "sft", "merge": "sft"}.get(stage)
    return section is not None and recipe.get(section) is None


def _natural(name: str) -> tuple[int, str]:
    """phase-2 before phase-10."""
    digits = name.removeprefix("phase-")
    return (int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else 0), name
