"""Makes an ordinary model folder of the parts that flagship.sh left.

    python benchmarks/gpu/restore.py SHIPMENT [SHIPMENT ...] --out MODEL

SHIPMENT is a folder such as int8-1, or bf16-1 and bf16-2 together. Their checksums are compared.
The weights are stored in bf16, as an export stores them.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from weights import from_int8, read_set

from tallyformer.artifacts.atomic import atomic_folder
from tallyformer.artifacts.manifest import entries_below, write_manifest
from tallyformer.artifacts.versions import installed_versions, utc_now

WEIGHTS = "model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shipments", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    options = parser.parse_args()
    restore(options.shipments, options.out)
    print(f"{options.out}: restored; try: tallyformer generate --model {options.out}")


def restore(shipments: Sequence[Path], out: Path) -> None:
    """Write the folder, whole or not at all, with a manifest that vouches for it.

    Raises:
        SystemExit: it is there already, or a shipment is missing.
        ArtifactError: a file is missing or altered.
    """
    if out.exists():
        raise SystemExit(f"{out}: is there already. Choose another --out")
    listing, tensors, rest = read_set(shipments)
    weights = from_int8(tensors) if listing.kind == "int8" else tensors
    with atomic_folder(out) as folder:
        with tarfile.open(rest) as archive:
            archive.extractall(folder, filter="data")
        narrow = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        save_file(narrow, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)
        files = entries_below(folder)
        write_manifest(
            folder,
            stage="export",
            config={"kind": listing.kind},
            seed=0,
            inputs={name: entry["sha256"] for name, entry in listing.files.items()},
            metrics=listing.numbers,
            files={folder / name: entry for name, entry in files.items()},
            versions=installed_versions(),
            now=utc_now(),
        )


if __name__ == "__main__":
    main()
