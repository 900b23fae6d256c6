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

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import PARTIAL
from tallyformer.artifacts.differences import differences
from tallyformer.artifacts.json_files import read_checked_json, write_checked_json
from tallyformer.artifacts.manifest import (
    FORMAT,
    MANIFEST,
    Files,
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
RECIPE = "recipe.yaml"
"""File of a run with the recipe as it ran."""
METRICS = "metrics.jsonl"
"""File of a training stage, or of a phase of one, with its metrics, an object a line."""
SAMPLES = "samples.jsonl"
"""File beside it with what the model wrote at each validation, an object a line."""
RESULTS = "results.json"
"""File of the stage `evaluate` with all that was measured."""
REPORT = "report.html"
"""The report of a run, in the folder of the stage `evaluate`."""
BEST = "best"
"""Sub-folder of a training stage with the weights of its best validation loss."""
MERGED = "merged"
"""Sub-folder of the stage `merge` with the merged model."""


@dataclass(frozen=True)
class RunFolder:
    """Where one run lives, and how to find what its stages wrote.

    Attributes:
        path: the folder.
        options: `--recipe`, `--set` and `--out` as the user typed them; by default those that
            name the recipe in the folder.
        begun_by: the command that was typed, for example "run"; by default each stage's own.
        program: what the user types to start this program.
        expect: `--expect` as the user typed it; `resume_command` has it too.
    """

    path: Path
    options: tuple[str, ...] = ()
    begun_by: str | None = None
    program: str = "tallyformer"
    expect: str | None = None

    def stage(self, name: str) -> Path:
        """Folder of a stage; it may not exist yet."""
        return self.path / FOLDER_OF_STAGE.get(name, name)

    def command(self, stage: str) -> str:
        """The command that makes a stage's folder, quoted so that it can be pasted."""
        recipe = str(self.path / RECIPE)
        options = self.options or ("--recipe", recipe, "--out", str(self.path))
        return shlex.join([self.program, stage, *options])

    def resume_command(self, stage: str) -> str:
        """The command that resumes the work which a stage has begun."""
        return f"{self.expecting_command(stage, self.expect)} --resume"

    def expecting_command(self, stage: str, code: str | None) -> str:
        """The command that was typed, with `--expect` of another code, or without it."""
        expected = f" --expect {shlex.quote(code)}" if code else ""
        return f"{self.command(self.begun_by or stage)}{expected}"

    def restart_command(self, stage: str, section: str, changes: Mapping[str, Any]) -> str:
        """The command that drops a stage's work and begins it with changed values.

        Args:
            section: of the recipe, for example "teacher.train".
            changes: key in the section -> value.
        """
        values = [f"{section}.{key}={json.dumps(value)}" for key, value in changes.items()]
        changed = shlex.join(part for value in values for part in ("--set", value))
        drop = shlex.join(["rm", "-r", str(self.stage(stage))])
        return f"{drop} && {self.resume_command(stage)} {changed}"

    def manifest(self, stage: str, *, check: bool = False) -> Manifest:
        """Manifest of a finished stage; with `check`, its files are hashed and compared.

        Raises:
            ArtifactError: the stage is not finished, an earlier version of this package finished
                it, or (with `check`) a file differs.
        """
        folder = self.stage(stage)
        manifest = read_manifest(folder, made_by=self.command(stage))
        if manifest.format != FORMAT:
            raise of_earlier_version(folder)
        check_files(folder, manifest, made_by=self.command(stage), contents=check)
        return manifest

    def is_finished(self, stage: str) -> bool:
        """True if the stage's manifest is there, in whatever state."""
        return os.path.lexists(self.stage(stage) / MANIFEST)


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
    """Whether a started folder may be resumed; otherwise it is an error."""
    sections: Mapping[str, str] = field(default_factory=dict)
    """What parts of `config` are called in a recipe, for errors; others follow the stage's name."""

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
            self.claim()
        return done

    def claim(self) -> None:
        """Sign the folder as this work, not yet finished.

        Raises:
            ArtifactError: it cannot be written.
        """
        write_checked_json(self._claim_file, self._described)

    def check(self) -> Manifest | None:
        """The manifest if this very work is finished and its files are intact, else None.

        Raises:
            ArtifactError: the folder holds other work, unfinished work that may not be resumed,
                files of somebody else, or a file that has been altered.
        """
        if not self.run.is_finished(self.stage):
            self._check_unfinished()
            return None
        manifest = self.run.manifest(self.stage, check=True)
        if manifest.fingerprint != self.fingerprint:
            there = {"config": manifest.config, "seed": manifest.seed, "inputs": manifest.inputs}
            raise self._other_work(there)
        return manifest

    def finish(self, *, metrics: Mapping[str, Any], files: Files, records: Files = ()) -> Manifest:
        """Write the manifest; the folder is an artifact from now on.

        Args:
            metrics: what was measured.
            files: what later stages may read.
            records: files that tell how the work went; see `Manifest`.

        Raises:
            ArtifactError: a file is gone or altered, or the manifest cannot be written.
        """
        manifest = write_manifest(
            self.folder,
            stage=self.stage,
            config=self.config,
            seed=self.seed,
            inputs=self.inputs,
            metrics=metrics,
            files=files,
            records=records,
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

    @property
    def _described(self) -> dict[str, Any]:
        """What the folder says of the work while it is unfinished."""
        return {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "config": self.config,
            "seed": self.seed,
            "inputs": self.inputs,
        }

    def _check_unfinished(self) -> None:
        if os.path.lexists(self._claim_file):
            claim = self._read_claim()
            if claim.get("fingerprint") != self.fingerprint:
                raise self._other_work(claim)
            if not self.resume:
                raise ArtifactError(
                    f"{self.folder}: holds unfinished work of this recipe. Delete the folder to "
                    f"start again, or resume with: {self.run.resume_command(self.stage)}"
                )
        elif self.folder.is_dir() and set(self.folder.iterdir()) - {self._unsigned}:
            raise ArtifactError(
                f"{self.folder}: holds files that no {self.stage} stage wrote. "
                "Choose another --out, or move them away"
            )

    def _read_claim(self) -> dict[str, Any]:
        if _is_unchecked_claim(self._claim_file):
            raise of_earlier_version(self.folder)
        return read_checked_json(
            self._claim_file,
            fix=f"Delete {self.folder} to start this stage again: {self.run.command(self.stage)}",
        )

    def _other_work(self, there: Mapping[str, Any]) -> ArtifactError:
        found = differences(there, self._described, stage=self.stage, sections=self.sections)
        return ArtifactError(
            f"{self.folder}: belongs to another run ({found}). "
            f"Choose another --out, or delete {self.folder} to make it again"
        )


def of_earlier_version(folder: Path) -> ArtifactError:
    """The error for a stage's folder that another format of manifest describes."""
    return ArtifactError(
        f"{folder}: was made by an earlier version of TallyFormer, whose checksums bind less. Its "
        "models load, but no stage can build on it: choose another --out, or delete it to make it "
        "again"
    )


def _is_unchecked_claim(file: Path) -> bool:
    """An earlier version wrote the fingerprint alone."""
    try:
        text = file.read_bytes().strip()
    except OSError:
        return False
    return len(text) == 64 and text.isalnum()


def clear(folder: Path) -> None:
    """Delete a folder if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
