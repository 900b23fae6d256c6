"""Prepares the texts of a recipe and makes packs of them: tokens, compressed, in files that travel.

    python benchmarks/gpu/pack.py benchmarks/gpu/flagship.yaml --data-root DATA --out PACKS

The stages `tokenizer` and `prepare` work in PACKS/run, and resume where they were stopped. Then the
training documents of every source are dealt out, so that each pack holds a like part of it;
validation, vocabulary and manifests are in the first. Packs are PACKS/pack-1, PACKS/pack-2 and so
on; `unpack.py` makes a run's folder of one or more of them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from packs import MIB, Pack, compress, folder_of_pack

from tallyformer.artifacts.manifest import entries_below
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config.load import load_recipe
from tallyformer.data.shard_writer import ShardWriter
from tallyformer.data.shards import FILES, Shard, TokenStream
from tallyformer.runs.data import load_shards, load_tokenizer
from tallyformer.stages import prepare, tokenizer


def main() -> None:
    options = _options()
    changed = [f"data_root={options.data_root}"] if options.data_root else []
    recipe = load_recipe(options.recipe, [*changed, *options.set])
    run = RunFolder(options.out / "run")
    tokenizer.run(recipe, run)
    prepare.run(recipe, run)
    shards = load_shards(run, load_tokenizer(run))
    for number in range(1, options.packs + 1):
        folder = folder_of_pack(options.out, number)
        shutil.rmtree(folder, ignore_errors=True)
        work = folder / "work"
        for source, stream in shards.train.items():
            _write_part(stream, work / "prepare/train" / source, number, options.packs)
        if number == 1:
            _write_the_rest(run.path, work)
        _close(folder, work, number, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data-root", type=Path, help="folder of the recipe's paths")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the packs")
    parser.add_argument("--packs", type=int, default=2, help="how many")
    parser.add_argument("--limit", type=float, default=60, help="MiB that a pack may have")
    parser.add_argument("--preset", type=int, default=9, help="of xz, 0 to 9")
    return parser.parse_args()


def parts_of(lengths: np.ndarray, packs: int) -> np.ndarray:
    """Which pack, from 0, each document goes to: the one that has the fewest tokens so far."""
    sizes = [0] * packs
    chosen = np.empty(len(lengths), dtype=np.int64)
    for document, length in enumerate(lengths.tolist()):
        chosen[document] = pack = sizes.index(min(sizes))
        sizes[pack] += length
    return chosen


def _write_part(stream: TokenStream, folder: Path, number: int, packs: int) -> None:
    """One source's documents of a pack as a shard that is numbered like the pack."""
    folder.mkdir(parents=True)
    lengths = [_lengths(shard) for shard in stream.shards]
    chosen = parts_of(np.concatenate(lengths), packs) == number - 1
    dtype = stream.shards[0].tokens.dtype
    with ShardWriter(folder, dtype, shard_tokens=2**62) as writer:
        begin = 0
        for shard, sizes in zip(stream.shards, lengths, strict=True):
            member = chosen[begin : begin + len(sizes)]
            begin += len(sizes)
            if member.any():
                tokens = np.asarray(shard.tokens)[np.repeat(member, sizes)]
                writer.add(tokens, sizes[member], np.asarray(shard.origins)[member])
    for path in writer.paths:
        path.rename(path.with_stem(f"{number - 1:05d}"))


def _lengths(shard: Shard) -> np.ndarray:
    return np.diff(np.append(shard.starts, len(shard.tokens)).astype(np.int64))


def _write_the_rest(run: Path, work: Path) -> None:
    shutil.copytree(run / "tokenizer", work / "tokenizer")
    shutil.copytree(run / "prepare/validation", work / "prepare/validation")
    shutil.copy2(run / "prepare" / FILES, work / "prepare" / FILES)
    # Of all packs together; unpacking makes one of those that are there.
    shutil.copy2(run / "prepare/manifest.json", work / "prepare/manifest.json")


def _close(folder: Path, work: Path, number: int, options: argparse.Namespace) -> None:
    """Compress the files, describe them, and say how large the pack is.

    Raises:
        SystemExit: it is larger than allowed.
    """
    files = entries_below(work)
    for name in files:
        compress(work / name, folder / f"{name}.xz", options.preset)
    shutil.rmtree(work)
    Pack(number, options.packs, files).write(folder)
    size = _bytes(folder.rglob("*")) / MIB
    tokens = sum(e["bytes"] for n, e in files.items() if "/train/" in n and n.endswith(".bin"))
    print(f"{folder}: {size:.1f} MiB, {tokens / MIB:.1f} MiB of training tokens", flush=True)
    if size > options.limit:
        raise SystemExit(
            f"{folder} has {size:.1f} MiB, more than --limit {options.limit:g}. Give --packs "
            f"{options.packs + 1}, or a recipe with less text"
        )


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    main()
