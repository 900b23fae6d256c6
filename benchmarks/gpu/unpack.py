"""Makes a run's folder of packs: `tokenizer/` and `prepare/` as their stages leave them.

    python benchmarks/gpu/unpack.py PACKS/pack-1 [PACKS/pack-2 ...] --out RUN

Packs may come one after the other: each call adds to the folder what it is given, and signs what is
there. The first one must come first.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packs import Pack, restore

from tallyformer.artifacts.manifest import MANIFEST, entries_below, read_manifest, resign
from tallyformer.data.shards import FILES, SPLITS

PREPARED = "prepare"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for pack in options.packs:
        unpack(pack, options.out)
    sign(options.out / PREPARED)


def unpack(pack: Path, run: Path) -> None:
    """Add a pack's files to a run's folder, several at a time."""
    files = Pack.read(pack).files
    with ThreadPoolExecutor() as threads:
        done = [
            threads.submit(restore, pack, name, entry, run / name) for name, entry in files.items()
        ]
        for work in done:
            work.result()
    print(f"{pack}: {len(files)} files in {run}", flush=True)


def sign(folder: Path) -> None:
    """Make the manifest, which names the shards of all packs, one of those that are there.

    Raises:
        SystemExit: the first pack has not come yet.
    """
    if not (folder / MANIFEST).is_file():
        raise SystemExit(f"{folder}: has no manifest. Unpack the first pack before the others")
    manifest = read_manifest(folder, made_by="unpack.py")
    there = [folder / FILES] + [f for s in SPLITS for f in (folder / s).rglob("*") if f.is_file()]
    entries = entries_below(folder)
    resign(folder, manifest, {f: entries[f.relative_to(folder).as_posix()] for f in sorted(there)})


if __name__ == "__main__":
    main()
