"""A run's folder: one sub-folder a stage.

runs/quickstart/
  recipe.yaml     the recipe as it ran, with every default filled in
  tokenizer/      transformers tokenizer
  prepare/        shards by split and source
  pretrain/ teacher/ distill/ sft/    metrics, checkpoints, best/ (a Hugging Face folder)
  merge/          the tuned model, one set of weights
  evaluate/       results.json, report.html
  model/          the final Hugging Face folder (stage `export`)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import PARTIAL, atomic_file
from tallyformer.artifacts.manifest import (
    MANIFEST,
    Manifest,
    check_files,
    fingerprint,
    read_manifest,
    write_manifest,
)
from tallyformer.artifacts.versions import installed_versions, utc_now
from tallyformer.errors import ArtifactError

FOLDER_OF_STAGE = {"export": "model"}
CLAIM = "work.txt"
"""The file by which a stage's folder says whose unfinished work it is."""
BEST = "best"
"""Sub-folder of a training stage with the weights of its best validation loss."""


@dataclass(frozen=True)
class RunFolder:
    """Where one run lives, and how to find what its stages wrote."""

    path: Path

    def stage(self, name: str) -> Path:
        """Folder of a stage; it may not exist yet."""
        return self.path / FOLDER_OF_STAGE.get(name, name)

    def command(self, stage: str) -> str:
        """The command that makes a stage's folder, for error messages."""
        return f"tallyformer {stage} --recipe {self.path / 'recipe.yaml'} --out {self.path}"

    def manifest(self, stage: str, *, check: bool = False) -> Manifest:
        """Manifest of a finished stage; with `check`, its files are hashed and compared.

        Raises:
            ArtifactError: the stage is not finished, or (with `check`) a file differs.
        """
        folder = self.stage(stage)
        manifest = read_manifest(folder, made_by=self.command(stage))
        check_files(folder, manifest, made_by=self.command(stage), contents=check)
        return manifest

    def is_finished(self, stage: str) -> bool:
        """True if the stage's manifest is there."""
        return (self.stage(stage) / MANIFEST).is_file()


@dataclass(frozen=True)
class StageWork:
    """What one stage is about to do; decides whether it has been done, and signs it when done.

    Use: `if (done := work.already_done()): return done`, do the work in `work.folder`, then
    `work.finish(...)`. `work.check()` says beforehand, and writes nothing, what will happen.
    """

    run: RunFolder
    stage: str
    config: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, str]
    resume: bool = True
    """Whether a started folder may be gone on with; otherwise it is an error."""

    @property
    def folder(self) -> Path:
        """Where the stage writes."""
        return self.run.stage(self.stage)

    @property
    def fingerprint(self) -> str:
        """Decides whether a finished or started folder is this very work."""
        return fingerprint(self.stage, self.config, self.seed, self.inputs)

    def already_done(self) -> Manifest | None:
        """The manifest if this very work is finished and its files are intact.

        Otherwise None, and the folder is signed, so that a resumed run knows whose work it holds.

        Raises:
            ArtifactError: as `check`, or the folder cannot be written.
        """
        done = self.check()
        if done is None and not self._claim_file.is_file():
            self._unsigned.unlink(missing_ok=True)
            with atomic_file(self._claim_file, "w") as file:
                file.write(self.fingerprint + "\n")
        return done

    def check(self) -> Manifest | None:
        """The manifest if this very work is finished and its files are intact, else None.

        Raises:
            ArtifactError: the folder holds other work, unfinished work that may not be gone on
                with, files of somebody else, or a file that has been altered.
        """
        if not self.run.is_finished(self.stage):
            self._check_unfinished()
            return None
        manifest = self.run.manifest(self.stage, check=True)
        if manifest.fingerprint != self.fingerprint:
            raise self._other_work()
        return manifest

    def finish(self, *, metrics: Mapping[str, Any], files: Iterable[Path]) -> Manifest:
        """Write the manifest; the folder is an artifact from now on."""
        manifest = write_manifest(
            self.folder,
            stage=self.stage,
            config=self.config,
            seed=self.seed,
            inputs=self.inputs,
            metrics=metrics,
            files=files,
            versions=installed_versions(),
            now=utc_now(),
        )
        self._claim_file.unlink(missing_ok=True)
        return manifest

    @property
    def _claim_file(self) -> Path:
        return self.folder / CLAIM

    @property
    def _unsigned(self) -> Path:
        """A signature that a kill cut off."""
        return self._claim_file.with_name(CLAIM + PARTIAL)

    def _check_unfinished(self) -> None:
        if self._claim_file.is_file():
            if self._claim_file.read_text(encoding="utf-8").strip() != self.fingerprint:
                raise self._other_work()
            if not self.resume:
                raise ArtifactError(
                    f"{self.folder}: holds unfinished work of this recipe. Add --resume to go "
                    "on with it, or delete the folder to start anew"
                )
        elif self.folder.is_dir() and set(self.folder.iterdir()) - {self._unsigned}:
            raise ArtifactError(
                f"{self.folder}: holds files that no {self.stage} stage wrote. "
                "Choose another --out, or move them away"
            )

    def _other_work(self) -> ArtifactError:
        return ArtifactError(
            f"{self.folder}: belongs to another run (its recipe, seed or inputs differ). "
            f"Choose another --out, or delete {self.folder} to make it anew"
        )


def clear(folder: Path) -> None:
    """Delete a folder if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
