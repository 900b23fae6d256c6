"""How far each stage of a run is, by the files in its folder."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tallyformer.artifacts.json_files import CHECK, check_depth, digest, parse_json
from tallyformer.artifacts.manifest import FORMAT, MANIFEST, UNCHECKED_FORMAT
from tallyformer.artifacts.run_folder import CLAIM, FOLDER_OF_STAGE
from tallyformer.artifacts.stages import STAGES
from tallyformer.monitor.curve import plotted
from tallyformer.monitor.facts import StageFact, facts_of
from tallyformer.monitor.inside import Advice, Inside, Unreadable
from tallyformer.monitor.look import Version, version_of

State = Literal["to do", "running", "stopped", "finished", "damaged", "not in the recipe"]
_MOST_BYTES = 16 << 20
MOST_KEPT = 4096
"""Files that are not read again, those that were asked for last."""


@dataclass(frozen=True, kw_only=True)
class StageLook:
    """One stage.

    Attributes:
        problem: what is damaged, in words; "" if nothing is.
        advice: what helps against it; None if nothing is damaged.
        began: seconds since 1970, of work that is not finished; None where that is unknown.
        ended: the same, of work that is.
        seconds: that the work took, where the stage has measured it.
        progress: from 0 to 1, of a training that has begun.
        facts: what was measured.
        config: what it was told.
    """

    stage: str
    state: State
    problem: str = ""
    advice: Advice | None = None
    began: float | None = None
    ended: float | None = None
    seconds: float | None = None
    progress: float | None = None
    facts: tuple[StageFact, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


class StageReader:
    """Looks at the stages of runs; a file that has not changed is not read again."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._read = functools.lru_cache(MOST_KEPT)(self._read_now)

    def stages(self, run: str, *, in_use: bool) -> list[StageLook]:
        """All stages of a run, in their order.

        Args:
            run: the name of its folder.
            in_use: whether a process works in it: then the stage that was begun last is running.
        """
        looks = [self._stage(run, stage) for stage in STAGES]
        begun = [look for look in looks if look.state == "stopped"]
        if in_use and begun:
            last = max(begun, key=lambda look: look.began or 0.0)
            looks[looks.index(last)] = replace(last, state="running")
        return looks

    def _stage(self, run: str, stage: str) -> StageLook:
        folder = (run, FOLDER_OF_STAGE.get(stage, stage))
        for name in (MANIFEST, CLAIM):
            try:
                version = version_of(self._inside, *folder, name)
            except FileNotFoundError:
                continue
            except Unreadable as reason:
                return _damaged(stage, folder[1], name, reason)
            return self._read(stage, (*folder, name), version)
        return StageLook(stage=stage, state="to do")

    def _read_now(self, stage: str, path: tuple[str, ...], version: Version) -> StageLook:
        _, folder, name = path
        try:
            values = checked_object(self._inside.text_of(*path, most=_MOST_BYTES))
            if name == MANIFEST and values.get("format") not in (FORMAT, UNCHECKED_FORMAT):
                raise Unreadable("is of another version", "version")
        except FileNotFoundError:  # finished, or deleted, between two looks
            return StageLook(stage=stage, state="to do")
        except (Unreadable, ValueError) as reason:
            if name == CLAIM:  # of an earlier version, or half written
                return StageLook(stage=stage, state="stopped", began=version.modified)
            return _damaged(stage, folder, name, reason)
        config = values.get("config")
        config = config if isinstance(config, dict) else {}
        if name == CLAIM:
            return StageLook(stage=stage, state="stopped", began=version.modified, config=config)
        metrics = values.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        return StageLook(
            stage=stage,
            state="finished",
            ended=_seconds_since_1970(values.get("created")),
            seconds=plotted(metrics.get("wall_seconds")),
            facts=facts_of(metrics),
            config=config,
        )


def checked_object(text: bytes) -> dict[str, Any]:
    """An object of JSON that carries its own checksum, without it.

    Raises:
        ValueError: it is none, or has changed; the message is the reason in a few words.
    """
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError("holds no names and values")
    check_depth(values)
    if CHECK not in values and values.get("format") == UNCHECKED_FORMAT:
        return values
    if values.pop(CHECK, None) != digest(values):
        raise ValueError("its values do not match its checksum")
    return values


def progress(look: StageLook, newest: Mapping[str, Any], phase: int = 0) -> float | None:
    """How far a training is, by the newest line of its metrics; None where that is unknown.

    Args:
        phase: which of several trainings of the stage these lines are from, from 0.
    """
    phases = _trainings(look)
    if phase >= len(phases) or not newest:
        return None
    section = phases[phase]
    for planned, done in (("steps", newest.get("step")), ("epochs", newest.get("epoch"))):
        whole, part = plotted(section.get(planned)), plotted(done)
        if whole and part is not None:
            return min(1.0, (phase + max(0.0, min(1.0, part / whole))) / len(phases))
    return None


def _trainings(look: StageLook) -> list[Mapping[str, Any]]:
    """The sections that say how long a stage trains."""
    config = look.config
    if look.stage == "distill":
        distill = config.get("distill")
        phases = distill.get("phases") if isinstance(distill, dict) else None
        return [p for p in phases if isinstance(p, dict)] if isinstance(phases, list) else []
    section = config.get("train", config)
    return [section] if isinstance(section, dict) else []


def _damaged(stage: str, folder: str, name: str, reason: Exception) -> StageLook:
    return StageLook(
        stage=stage,
        state="damaged",
        problem=f"{folder}/{name}: {reason}",
        advice=reason.advice if isinstance(reason, Unreadable) else "restore",
    )


def _seconds_since_1970(created: Any) -> float | None:
    try:
        return datetime.datetime.fromisoformat(created).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
