"""A model's folder compared with the manifest that vouches for it, before anything is loaded.

An exported folder holds its manifest; that of `best/`, `merged/` and `adapter/` lies one level up,
and a phase of distillation is vouched for by `result.json` beside its `best/`. All files but the
model card are read once more for it: about a second a gigabyte.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallyformer.artifacts.json_files import read_checked_json
from tallyformer.artifacts.manifest import MANIFEST, check_file, read_manifest

RESULT = "result.json"
"""What a phase of distillation leaves beside its `best/`."""
OUTPUTS = frozenset({"best", "merged", "adapter"})
"""Names of model folders whose manifest lies one level up."""
_CARD = ".md"
_LOADED = ("config.json", "adapter_config.json", "tokenizer.json")
"""A folder that is loaded has one of them; that of `prepare` has none, and may be large."""


def check_model_folder(folder: Path) -> None:
    """Compare a folder's files with its manifest; one without, or without a model, passes.

    Raises:
        ArtifactError: a file is missing or altered, or the manifest is damaged.
    """
    if not any(os.path.lexists(folder / name) for name in _LOADED):
        return
    for voucher, below in _vouchers(folder):
        fix = (
            f"Make or fetch the folder again; if the change is yours, delete {voucher}, and "
            "nothing is compared any more"
        )
        for name, entry in _recorded(voucher, fix).items():
            file = voucher.parent / name
            if name.startswith(below) and file.suffix != _CARD:
                check_file(file, entry, fix=fix)


def _vouchers(folder: Path) -> list[tuple[Path, str]]:
    """The file that records a model's folder, and how the names of its files begin there."""
    places = [(folder / MANIFEST, "")]
    really = folder.resolve()
    if really.name in OUTPUTS:
        places += [(really.parent / name, f"{really.name}/") for name in (MANIFEST, RESULT)]
    return [place for place in places if os.path.lexists(place[0])][:1]


def _recorded(voucher: Path, fix: str) -> Mapping[str, Mapping[str, Any]]:
    if voucher.name == MANIFEST:
        return read_manifest(voucher.parent, made_by="", fix=fix).files
    files: Mapping[str, Mapping[str, Any]] = read_checked_json(voucher, fix=fix)["files"]
    return files
