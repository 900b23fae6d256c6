"""The form of a pack: compressed files and a list of them with the checksums of their contents."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tallyformer.artifacts.manifest import check_file

MIB = 2**20
PACK = "pack.json"
_WINDOW = 2**28
"""Bytes in which xz finds repetitions: more than any file of a pack has."""


def folder_of_pack(packs: Path, number: int) -> Path:
    """Where `pack.py` puts a pack."""
    return packs / f"pack-{number}"


@dataclass(frozen=True)
class Pack:
    """One of several packs.

    Attributes:
        number: from 1.
        packs: how many there are.
        files: size and SHA-256 of each file that the pack unpacks to.
    """

    number: int
    packs: int
    files: Mapping[str, Mapping[str, Any]]

    def write(self, folder: Path) -> None:
        """Write the list."""
        (folder / PACK).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Pack:
        """Read the list of a folder.

        Raises:
            SystemExit: the folder is not a pack.
        """
        try:
            return cls(**json.loads((folder / PACK).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SystemExit(f"{folder}: is not a pack ({error}). Make one with pack.py") from None


def compress(file: Path, target: Path, preset: int) -> None:
    """Write a file compressed; its numbers of two bytes are told to xz."""
    window = min(_WINDOW, max(2**16, file.stat().st_size))
    how = {"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": window, "lc": 3, "lp": 1}
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as source, lzma.open(target, "wb", filters=[{**how, "pb": 1}]) as packed:
        shutil.copyfileobj(source, packed, MIB)


def restore(pack: Path, name: str, entry: Mapping[str, Any], target: Path) -> None:
    """Write one file of a pack as it was.

    Raises:
        SystemExit: the pack is damaged.
        ArtifactError: the file is not as it was packed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lzma.open(pack / f"{name}.xz") as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file, MIB)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise SystemExit(f"{pack / name}.xz: damaged ({error}). Send the pack again") from None
    check_file(target, entry, fix="Send the pack again")
