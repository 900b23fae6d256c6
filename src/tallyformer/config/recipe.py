"""A recipe: one file, one section a stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from tallyformer.config.base import Section, Use
from tallyformer.config.data import PrepareSection
from tallyformer.config.distill import DistillSection, TeacherSection
from tallyformer.config.evaluation import EvaluateSection, ExportSection
from tallyformer.config.model import ModelSection, TokenizerSection
from tallyformer.config.sft import SftSection
from tallyformer.config.training import PretrainSection
from tallyformer.errors import ConfigError


class Recipe(Section):
    """Everything a run needs. A stage without a section is not part of the run."""

    uses: ClassVar[Mapping[str, Use]] = {
        "evaluate.pairs": Use("a recipe with an sft section", lambda recipe: bool(recipe.sft))
    }
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Letters, digits, `_`, `.`, `-`; the run goes to `runs/NAME`."""
    description: str = ""
    """Shown in the report and the model card."""
    seed: int = Field(1337, ge=0, lt=2**63)
    """Decides split, order, initial weights, dropout, worked examples."""
    data_root: str = "."
    """Folder that relative paths of sources, tokenizer and teacher are looked up in first."""
    model: ModelSection = ModelSection()
    """The model's shape."""
    tokenizer: TokenizerSection = TokenizerSection()
    """The vocabulary."""
    prepare: PrepareSection
    """Texts."""
    pretrain: PretrainSection
    """Training from scratch."""
    teacher: TeacherSection | None = None
    """The model that `distill` learns from."""
    distill: DistillSection | None = None
    """Training on a teacher's distributions."""
    sft: SftSection | None = None
    """Fine-tuning and merge."""
    evaluate: EvaluateSection = EvaluateSection()
    """What is measured."""
    export: ExportSection = ExportSection()
    """The final folder."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        if self.distill and not self.teacher:
            raise ValueError("distill needs a teacher section")
        if self.teacher and not self.distill:
            raise ValueError(
                "teacher is for distill, and the recipe has no distill section. Add one, or remove "
                "teacher"
            )
        names = {s.name for s in self.prepare.sources}
        for where, weights in (
            ("pretrain.weights", self.pretrain.weights),
            ("distill.weights", self.distill and self.distill.weights),
            (
                "teacher.train.weights",
                self.teacher and self.teacher.train and self.teacher.train.weights,
            ),
        ):
            for name, weight in (weights or {}).items():
                if name not in names:
                    raise ValueError(
                        f"{where} names {name!r}, which is not a source of prepare; "
                        f"there are: {', '.join(sorted(names))}"
                    )
                if weight < 0:
                    raise ValueError(f"{where}.{name} is {weight}; a weight is 0 or more")
            if weights and not any(weights.values()):
                raise ValueError(f"{where} has no weight above 0")
        self._check_held_out()
        return self

    def _check_held_out(self) -> None:
        """Refuse to train in one stage on what another holds out of the same corpus."""
        if not self.sft or self.sft.validation_fraction == self.prepare.validation_fraction:
            return
        both = {s.corpus for s in self.prepare.sources} & {s.corpus for s in self.sft.sources}
        if shared := sorted(filter(None, both)):
            raise ValueError(
                f"sft.validation_fraction is {self.sft.validation_fraction} and "
                f"prepare.validation_fraction {self.prepare.validation_fraction}, but both read "
                f"the corpus {' and '.join(shared)}, so that one would train on what the other "
                "holds out. Make the two fractions equal"
            )

    def locate(self, source: str, revision: str | None) -> str:
        """`source` under `data_root` if it exists there, else `source` as it stands.

        Raises:
            ConfigError: it is a local folder and has a revision.
        """
        below = Path(self.data_root) / source
        place = below if below.exists() else Path(source)
        if revision is not None and place.exists():
            raise ConfigError(
                f"{source}: revision {revision!r} is for a hub name, and {place} is here. Remove "
                "revision"
            )
        return str(below) if below.exists() else source
