"""The manifest: the last file a stage writes, and what makes its folder an artifact.

It records what went in (fingerprints), what was asked (the configuration), what came out (files
with size and SHA-256) and what was measured, so every number can be traced to its inputs.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tallyformer.artifacts.atomic import write_json
from tallyformer.errors import ArtifactError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What one stage did.

    Attributes:
        stage: the stage's name.
        fingerprint: SHA-256 over stage, configuration, seed and input fingerprints. Equal
            fingerprints mean that the work need not be done again.
        inputs: name -> fingerprint of every artifact or file read.
        files: path relative to the folder -> {"bytes": int, "sha256": str}.
        metrics: what the stage measured.
    """

    stage: str
    fingerprint: str
    config: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    format: int = FORMAT


def fingerprint(stage: str, config: Mapping[str, Any], seed: int, inputs: Mapping[str, str]) -> str:
    """SHA-256 in hex of everything that decides a stage's result."""
    text = json.dumps([FORMAT, stage, config, seed, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(
    folder: Path,
    *,
    stage: str,
    config: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, str],
    metrics: Mapping[str, Any],
    files: Iterable[Path],
    versions: Mapping[str, str],
    now: datetime.datetime,
) -> Manifest:
    """Hash `files` (below `folder`, or relative to it) and write the manifest, last of all."""
    entries = {}
    for file in sorted(f if f.is_relative_to(folder) else folder / f for f in files):
        entries[file.relative_to(folder).as_posix()] = {
            "bytes": file.stat().st_size,
            "sha256": sha256(file),
        }
    manifest = Manifest(
        stage=stage,
        fingerprint=fingerprint(stage, config, seed, inputs),
        config=config,
        seed=seed,
        inputs=inputs,
        files=entries,
        metrics=metrics,
        versions=versions,
        created=now.isoformat(timespec="seconds"),
    )
    write_json(folder / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(folder: Path, *, made_by: str) -> Manifest:
    """Read a folder's manifest.

    Args:
        folder: the artifact.
        made_by: the command that makes it, named in errors.

    Raises:
        ArtifactError: there is none, or it cannot be understood.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise ValueError(f"format {values.get('format')!r}, expected {FORMAT}")
        return Manifest(**values)
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder}: not there or not finished (no {MANIFEST}). Make it first: {made_by}"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: damaged ({error}). Delete {folder} and make it again: {made_by}"
        ) from None


def check_files(folder: Path, manifest: Manifest, *, made_by: str, contents: bool = True) -> None:
    """Compare the files with the manifest, by size and (with `contents`) by SHA-256.

    Raises:
        ArtifactError: a file is missing, truncated or altered; it is named.
    """
    for name, entry in manifest.files.items():
        file = folder / name
        fix = f"Delete {folder} and make it again: {made_by}"
        if not file.is_file():
            raise ArtifactError(f"{file}: missing, though the manifest lists it. {fix}")
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(f"{file}: {size} bytes, the manifest says {entry['bytes']}. {fix}")
        if contents and sha256(file) != entry["sha256"]:
            raise ArtifactError(f"{file}: checksum differs from the manifest. {fix}")


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
