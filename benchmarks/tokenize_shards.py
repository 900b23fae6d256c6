"""How fast `prepare` makes shards, against tiktoken's own `encode_to_numpy` on the same texts.

Both run in one process, in turn, several rounds. tiktoken gets the texts ready in memory; prepare
does everything: reads the file, parses, normalises, hashes, tokenises, deduplicates, writes shards
with their index, and flushes them to the disk. Then the memory: the peak of a process that
prepares FILE alone, and of one that prepares FILE and all of --more.

    python benchmarks/tokenize_shards.py FILE.jsonl[.gz|.xz|.zst] TOKENIZER_FOLDER [--more FILE ...]

TOKENIZER_FOLDER holds GPT-2's vocab.json and merges.txt. The result goes to
benchmarks/results/DATE-tokenize-shards.json.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.versions import installed_versions
from tallyformer.config.data import PrepareSection
from tallyformer.data.prepare import write_shards
from tallyformer.data.rows import fields_of
from tallyformer.data.sources import text_source
from tallyformer.data.units import TokenizerName, cached_tokenizer
from tallyformer.tokenizer import Tokenizer

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="JSON lines with a field `text`")
    parser.add_argument("tokenizer", type=Path, help="folder with vocab.json and merges.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    section = _section([options.file], options.documents)
    texts = _texts(section, options.documents)
    size = sum(len(text.encode()) for text in texts)
    encoding = _tiktoken(options.tokenizer)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = Tokenizer.from_pretrained(options.tokenizer)
        tokenizer.save(folder / "tokenizer")
        name = TokenizerName(folder / "tokenizer", tokenizer.fingerprint)
        number = itertools.count()
        rates = _interleaved(
            {
                "tiktoken": lambda: [encoding.encode_to_numpy(text) for text in texts],
                "prepare": lambda: _prepare(section, name, folder / str(next(number))),
            },
            size,
            options.rounds,
        )
        memory = [
            _peak([options.file, *more], name, folder / f"memory-{len(more)}")
            for more in ([], options.more)
        ]
    result = _result(rates, size, len(texts), options.file.name)
    result["memory"] = memory
    result["summary"]["peak_mb"] = [point["peak_mb"] for point in memory]
    path = RESULTS / f"{datetime.date.today().isoformat()}-tokenize-shards.json"
    write_json(path, result)
    print(json.dumps(result["summary"], indent=2))
    print(path)


def _section(files: Sequence[Path], documents: int) -> PrepareSection:
    paths = [str(file.resolve()) for file in files]
    source = {"name": "text", "paths": paths, "max_documents": documents}
    return PrepareSection.model_validate({"sources": [source], "min_chars": 1})


def _texts(section: PrepareSection, documents: int) -> list[str]:
    source = text_source(section.sources[0], data_root=".", seed=0, max_chars=section.max_chars)
    rows = itertools.islice(source.rows(), documents)
    return [fields_of(row, source.files[0], ("text",))["text"] for row in rows]


def _tiktoken(folder: Path) -> tiktoken.Encoding:
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(folder / "merges.txt"), encoder_json_file=str(folder / "vocab.json")
    )
    return tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


def _prepare(section: PrepareSection, tokenizer: TokenizerName, folder: Path) -> dict[str, Any]:
    cached_tokenizer.cache_clear()
    source = text_source(section.sources[0], data_root=".", seed=0, max_chars=section.max_chars)
    metrics, _ = write_shards(
        [source],
        section,
        tokenizer=tokenizer,
        folder=folder,
        seed=0,
        workers=1,
    )
    return metrics


def _peak(files: Sequence[Path], tokenizer: TokenizerName, folder: Path) -> dict[str, Any]:
    """Text and peak memory of a fresh process that prepares the files."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_prepare_and_measure, files, tokenizer, folder).result()


def _prepare_and_measure(
    files: Sequence[Path], tokenizer: TokenizerName, folder: Path
) -> dict[str, Any]:
    metrics = _prepare(_section(files, 10**9), tokenizer, folder)
    # Not ru_maxrss, which a process inherits from the one that starts it.
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "files": len(files),
        "text_mb": round(metrics["total"]["bytes"]["total"] / 1e6, 1),
        "peak_mb": round(int(peak.split()[1]) * 1024 / 1e6, 1),
    }


def _interleaved(
    contestants: dict[str, Callable[[], Any]], size: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """MB/s by wall clock and by processor time; an unmeasured round comes first."""
    rates: dict[str, dict[str, list[float]]] = {n: {"wall": [], "cpu": []} for n in contestants}
    for round_number in range(rounds + 1):
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if round_number:
                rates[name]["wall"].append(size / wall / 1e6)
                rates[name]["cpu"].append(size / cpu / 1e6)
    return rates


def _result(
    rates: dict[str, dict[str, list[float]]], size: int, documents: int, file: str
) -> dict[str, Any]:
    ratios = {
        clock: [
            ours / theirs
            for ours, theirs in zip(rates["prepare"][clock], rates["tiktoken"][clock], strict=True)
        ]
        for clock in ("wall", "cpu")
    }
    return {
        "what": "prepare's rate over tiktoken's encode_to_numpy rate, one process, MB of text/s",
        "command": " ".join(
            ["python", "benchmarks/tokenize_shards.py", *map(_plain, sys.argv[1:])]
        ),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "system": platform.platform(terse=True),
        },
        "versions": installed_versions(),
        "input": {"file": file, "documents": documents, "text_bytes": size},
        "rates_mb_per_s": rates,
        "ratios": ratios,
        "summary": {
            "ratio_wall": _spread(ratios["wall"]),
            "ratio_cpu": _spread(ratios["cpu"]),
            "tiktoken_mb_per_s_wall": _spread(rates["tiktoken"]["wall"]),
            "prepare_mb_per_s_wall": _spread(rates["prepare"]["wall"]),
            "bar": 0.6,
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _plain(argument: str) -> str:
    """Without folders, which differ from machine to machine."""
    return Path(argument).name


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
