"""The manifest: the last file a stage writes, and what makes its folder an artifact.

It records what went in (results of earlier stages), what was asked (the configuration), what came
out (files with size and SHA-256) and what was measured, so every number can be traced to its
inputs. It carries its own checksum, and its `result` binds what it lists; a later stage records the
results it read, so one chain of checksums leads from the last folder to the inputs.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tallyformer.artifacts.json_files import CHECK, digest, read_json, write_checked_json
from tallyformer.artifacts.system_errors import advice_on_reading
from tallyformer.errors import ArtifactError

MANIFEST = "manifest.json"
FORMAT = 2
UNCHECKED_FORMAT = 1
"""Of an earlier version, without checksum and result. Its model folders load, its runs are not
resumed."""

Files = Iterable[Path] | Mapping[Path, Mapping[str, Any]]
"""Files, or with each the size and checksum that were taken when it was written."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What one stage did.

    Attributes:
        stage: the stage's name.
        fingerprint: SHA-256 over stage, configuration, seed and inputs. Equal fingerprints mean
            that the work need not be done again.
        inputs: name -> `result` of every stage and checksum of every file that was read.
        files: path relative to the folder -> {"bytes": int, "sha256": str}.
        records: those of `files` that tell how the work went and that no later stage reads; they
            hold times, so they differ when the same work is done again.
        result: SHA-256 over the fingerprint and the other files' checksums.
        metrics: what the stage measured.
    """

    stage: str
    fingerprint: str
    config: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    records: Sequence[str] = ()
    result: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    format: int = FORMAT


def fingerprint(stage: str, config: Mapping[str, Any], seed: int, inputs: Mapping[str, str]) -> str:
    """SHA-256 in hex of everything that decides a stage's result."""
    return digest([FORMAT, stage, config, seed, inputs])


def file_entry(file: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def entries_below(folder: Path) -> dict[str, dict[str, Any]]:
    """The same of every file below a folder, by name."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): file_entry(f) for f in files}


def write_manifest(
    folder: Path,
    *,
    stage: str,
    config: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, str],
    metrics: Mapping[str, Any],
    files: Files,
    records: Files = (),
    versions: Mapping[str, str],
    now: datetime.datetime,
) -> Manifest:
    """Write the manifest of `files` and `records` (below `folder`, or relative to it).

    Raises:
        ArtifactError: a file is not as it was when its size and checksum were taken, or the
            manifest cannot be written.
    """
    named, recorded = _entries(folder, files), _entries(folder, records)
    work = fingerprint(stage, config, seed, inputs)
    manifest = Manifest(
        stage=stage,
        fingerprint=work,
        config=config,
        seed=seed,
        inputs=inputs,
        files={**named, **recorded},
        records=list(recorded),
        result=_result(work, named),
        metrics=metrics,
        versions=versions,
        created=now.isoformat(timespec="seconds"),
    )
    write_checked_json(folder / MANIFEST, asdict(manifest))
    return manifest


def resign(folder: Path, manifest: Manifest, files: Files) -> Manifest:
    """Write the manifest of a folder whose files were changed on purpose; see `resigned`."""
    changed = resigned(folder, manifest, files)
    write_signed(folder, changed)
    return changed


def resigned(folder: Path, manifest: Manifest, files: Files) -> Manifest:
    """The manifest of a folder whose files were changed on purpose.

    Args:
        folder: which.
        manifest: what stays as it is: stage, inputs, metrics.
        files: all that the folder consists of now, below it or relative to it.
    """
    entries = _entries(folder, files)
    outputs = {name: entry for name, entry in entries.items() if name not in manifest.records}
    return replace(
        manifest, files=entries, result=_result(manifest.fingerprint, outputs), format=FORMAT
    )


def rebound(manifest: Manifest, results: Mapping[str, str]) -> Manifest:
    """The manifest of a later stage, after stages that it read were signed again.

    Args:
        manifest: the later stage's.
        results: `result` of a stage before -> after.
    """
    inputs = {name: results.get(result, result) for name, result in manifest.inputs.items()}
    if inputs == manifest.inputs:
        return manifest
    work = fingerprint(manifest.stage, manifest.config, manifest.seed, inputs)
    outputs = {n: entry for n, entry in manifest.files.items() if n not in manifest.records}
    return replace(manifest, inputs=inputs, fingerprint=work, result=_result(work, outputs))


def write_signed(folder: Path, manifest: Manifest) -> None:
    """Write a manifest that `resigned` or `rebound` made.

    Raises:
        ArtifactError: it cannot be written.
    """
    write_checked_json(folder / MANIFEST, asdict(manifest))


def read_manifest(folder: Path, *, made_by: str, fix: str | None = None) -> Manifest:
    """Read a folder's manifest and compare it with its own checksum.

    Args:
        folder: the artifact.
        made_by: the command that makes it, named in errors.
        fix: what helps against damage, if it is not to make the folder again.

    Raises:
        ArtifactError: there is none, it is damaged, or another version wrote it in a form that
            this one does not know.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise ArtifactError(
            f"{folder}: not there or not finished (no {MANIFEST}). Make it first: {made_by}"
        )
    fix = fix or f"Delete {folder} and make it again: {made_by}"
    values = read_json(path, fix=fix)
    if values.get("format") not in (FORMAT, UNCHECKED_FORMAT):
        raise ArtifactError(
            f"{path}: damaged, or of another version (format {_shown(values.get('format'))}, "
            f"expected {FORMAT}). {fix}"
        )
    check = values.pop(CHECK, None)
    if values["format"] == FORMAT and check != digest(values):
        raise ArtifactError(f"{path}: damaged (its values do not match its checksum). {fix}")
    try:
        return _checked(values)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged ({error}). {fix}") from None


def check_files(folder: Path, manifest: Manifest, *, made_by: str, contents: bool = True) -> None:
    """Compare the files with the manifest, by size and (with `contents`) by SHA-256.

    Raises:
        ArtifactError: a file is missing, truncated or altered; it is named.
    """
    fix = f"Delete {folder} and make it again: {made_by}"
    for name, entry in manifest.files.items():
        check_file(folder / name, entry, fix=fix, contents=contents)


def check_file(file: Path, entry: Mapping[str, Any], *, fix: str, contents: bool = True) -> None:
    """Compare one file with what was recorded of it.

    Raises:
        ArtifactError: it is missing, truncated, altered or cannot be read.
    """
    if not file.is_file():
        raise ArtifactError(f"{file}: missing, though the manifest lists it. {fix}")
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(f"{file}: {size} bytes, the manifest says {entry['bytes']}. {fix}")
        if contents and sha256(file) != entry["sha256"]:
            raise ArtifactError(f"{file}: checksum differs from the manifest. {fix}")
    except OSError as error:
        helps = advice_on_reading(error, fix)
        raise ArtifactError(f"{file}: cannot be read ({error.strerror}). {helps}") from None


def _result(work: str, outputs: Mapping[str, Mapping[str, Any]]) -> str:
    return digest([work, {name: entry["sha256"] for name, entry in outputs.items()}])


def _entries(folder: Path, files: Files) -> dict[str, Mapping[str, Any]]:
    """What the manifest says of files, by name; those with sizes and checksums are compared."""
    known = files if isinstance(files, Mapping) else dict.fromkeys(files)
    entries: dict[str, Mapping[str, Any]] = {}
    for file, entry in known.items():
        below = file.relative_to(folder) if file.is_relative_to(folder) else file
        if entry is not None:
            check_file(folder / below, entry, fix=f"Delete {folder} and run this stage again")
        entries[below.as_posix()] = entry or file_entry(folder / below)
    return dict(sorted(entries.items()))


_TYPES = {
    "stage": str,
    "fingerprint": str,
    "config": dict,
    "seed": int,
    "inputs": dict,
    "files": dict,
    "metrics": dict,
    "versions": dict,
    "created": str,
    "records": list,
    "result": str,
}


def _checked(values: dict[str, Any]) -> Manifest:
    """The manifest, if every value has its type; one without a checksum can hold anything."""
    manifest = Manifest(**values)
    for name, kind in _TYPES.items():
        if name in values and not isinstance(values[name], kind):
            raise ValueError(f"{name} has the type {type(values[name]).__name__}")
    for name, entry in manifest.files.items():
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("bytes"), int)
            and isinstance(entry.get("sha256"), str)
        ):
            raise ValueError(f"files has no size and checksum of {name!r}")
    return manifest


def _shown(value: Any) -> str:
    return repr(value)[:40]


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
