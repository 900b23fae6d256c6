"""Weights in files of bounded size: as int8 with a scale for each row, or as they are stored.

A set of parts is a few folders ("shipments"), each small enough to travel at once:

    int8-1/ int8.01.safetensors ... model.tar.xz metrics.jsonl weights.json
    bf16-1/ bf16.01.safetensors ... model.tar.xz metrics.jsonl weights.json
    bf16-2/ bf16.05.safetensors ... weights.json

A part holds ranges of rows, named `tensor[first row]`. `model.tar.xz` is the exported folder
without its weights. `weights.json` has each file's size and checksum, and the set's numbers.

R rows, C columns.
"""

from __future__ import annotations

import itertools
import json
import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tallyformer.artifacts.manifest import check_file, file_entry

MIB = 2**20
LISTING = "weights.json"
REST = "model.tar.xz"
SCALE = ".scale"
_HEADER = 2**14
"""Bytes of a part that are left for safetensors' names and a row that does not fit evenly."""

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Limits:
    """How large one file and one shipment may be, in MiB."""

    file: float = 16
    shipment: float = 60


@dataclass
class Listing:
    """What `weights.json` says.

    Attributes:
        kind: "int8" or "bf16".
        shipment: which, from 1.
        shipments: how many there are.
        files: size and SHA-256 of each file beside this one.
        numbers: what is known of these weights.
    """

    kind: str
    shipment: int
    shipments: int
    files: dict[str, dict[str, Any]]
    numbers: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (folder / LISTING).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Listing:
        """Read it and compare the folder's files with it.

        Raises:
            SystemExit: the folder is not a shipment.
            ArtifactError: a file is missing or altered.
        """
        try:
            found = cls(**json.loads((folder / LISTING).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SystemExit(f"{folder}: holds no weights of flagship.sh ({error})") from None
        for name, entry in found.files.items():
            check_file(folder / name, entry, fix="Fetch it again")
        return found


def as_int8(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Matrices as int8 (R, C) and a float32 scale (R, 1) a row; other tensors as they are."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            found[name] = tensor
            continue
        wide_RC = tensor.float()
        scale_R1 = (wide_RC.abs().amax(dim=1, keepdim=True) / 127).clamp_min(1e-12)
        found[name] = (wide_RC / scale_R1).round().to(torch.int8)
        found[name + SCALE] = scale_R1
    return found


def from_int8(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The inverse of `as_int8`, in float32."""
    return {
        name: tensor.float() * tensors[name + SCALE] if name + SCALE in tensors else tensor.float()
        for name, tensor in tensors.items()
        if not name.endswith(SCALE)
    }


def write_set(
    kind: str, tensors: Tensors, extra: Sequence[Path], folder: Path, limits: Limits
) -> list[Path]:
    """Write a set of parts below `folder`; the first shipment also gets the files of `extra`.

    Parts and shipments are as few as can be, and of about equal size.

    Returns:
        The shipments' folders.

    Raises:
        SystemExit: the limits leave no room.
    """
    one_file = limits.file * MIB - _HEADER
    room = limits.shipment * MIB - sum(path.stat().st_size for path in extra) - _HEADER
    largest = max((path.stat().st_size for path in extra), default=0)
    if room <= _HEADER or one_file <= 0 or largest > limits.file * MIB:
        names = ", ".join(path.name for path in extra)
        raise SystemExit(f"{limits}: no room for weights beside {names}. Raise the limits")
    shipments, count, most = _division(tensors, room, one_file)
    parts = list(_parts(tensors, most))
    folders = []
    for number in range(1, shipments + 1):
        place = folder / f"{kind}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        for index in range((number - 1) * count, min(number * count, len(parts))):
            save_file(parts[index], place / f"{kind}.{index + 1:02d}.safetensors")
        for path in extra if number == 1 else ():
            (place / path.name).write_bytes(path.read_bytes())
        files = {path.name: file_entry(path) for path in sorted(place.iterdir())}
        Listing(kind, number, shipments, files).write(place)
        folders.append(place)
        sizes = [path.stat().st_size for path in place.iterdir()]
        assert max(sizes) <= limits.file * MIB and sum(sizes) <= limits.shipment * MIB
    assert len(parts) <= count * shipments
    return folders


def _division(tensors: Tensors, room: float, one_file: float) -> tuple[int, int, int]:
    """Shipments, parts of each, and bytes of a part, which may reach one row beyond its share.

    Raises:
        SystemExit: a row is larger than a file may be.
    """
    size = sum(_bytes(tensor) for tensor in tensors.values())
    row = max(_bytes(tensor[:1]) for tensor in tensors.values())
    if row >= one_file or row + _HEADER >= room:
        raise SystemExit(f"a row of {row:,} bytes is larger than the limits. Raise the limits")
    for shipments in itertools.count(max(1, math.ceil(size / room))):
        count = math.ceil(size / shipments / (one_file - row))
        most = math.ceil(size / (count * shipments)) + row
        if count * (most + _HEADER) <= room:
            return shipments, count, most
    raise AssertionError


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _parts(tensors: Tensors, most: int) -> Iterator[dict[str, torch.Tensor]]:
    """Ranges of rows, in parts of at most this many bytes."""
    part: dict[str, torch.Tensor] = {}
    used = 0
    for name, tensor in tensors.items():
        row = _bytes(tensor[:1])
        first = 0
        while first < tensor.shape[0]:
            rows = min(tensor.shape[0] - first, (most - used) // row)
            if rows <= 0:
                yield part
                part, used = {}, 0
                continue
            part[f"{name}[{first}]"] = tensor[first : first + rows].contiguous()
            used += rows * row
            first += rows
    yield part


def read_set(shipments: Iterable[Path]) -> tuple[Listing, dict[str, torch.Tensor], Path]:
    """The tensors of all shipments of a set, checked, and where its `model.tar.xz` is.

    Raises:
        SystemExit: a shipment is missing, or they are of several sets.
        ArtifactError: a file is missing or altered.
    """
    listings = {folder: Listing.read(folder) for folder in shipments}
    first = next((f for f, listing in listings.items() if listing.shipment == 1), None)
    found = {(listing.kind, listing.shipment) for listing in listings.values()}
    one = next(iter(listings.values()))
    wanted = {(one.kind, number) for number in range(1, one.shipments + 1)}
    if first is None or found != wanted:
        names = ", ".join(sorted(f"{kind}-{number}" for kind, number in wanted))
        raise SystemExit(f"{', '.join(map(str, listings))}: give all of {names}, and no others")
    ranges: dict[str, dict[int, torch.Tensor]] = {}
    for folder, listing in listings.items():
        for file in sorted(n for n in listing.files if n.endswith(".safetensors")):
            for key, tensor in load_file(folder / file).items():
                name, _, start = key.removesuffix("]").rpartition("[")
                ranges.setdefault(name, {})[int(start)] = tensor
    whole = {name: torch.cat([rows[s] for s in sorted(rows)]) for name, rows in ranges.items()}
    return listings[first], whole, first / REST


def pack_rest(model: Path, target: Path) -> None:
    """An exported folder without its weights and the manifest that names them."""
    with tarfile.open(target, "w:xz") as archive:
        for path in sorted(model.iterdir()):
            if path.suffix != ".safetensors" and path.name != "manifest.json":
                archive.add(path, path.name)
