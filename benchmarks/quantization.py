"""Perplexity of a model with weights in each precision, computed by the native engine.

    python benchmarks/quantization.py MODEL_FOLDER TEXT.jsonl.xz [MORE ...]

Reads documents {"text": ...} of each file in turn until there are `--windows` windows of the
model's context, and scores every id of a window but its first. float32 is the base of the ratios;
those to bf16 are the ones that have bars: int8 at most 1.005, int4 at most 1.03.

Writes benchmarks/results/<date>-quantization.json, or the file of --out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import lzma
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

from measuring import write_result

from tallyformer.artifacts.json_files import read_json
from tallyformer.inference.engine.runner import Work
from tallyformer.inference.native.runner import NativeRunner
from tallyformer.model.shape import shape_of
from tallyformer.tokenizer import Tokenizer

RESULTS = Path(__file__).parent / "results"
DTYPES = ("float32", "bfloat16", "int8", "int4")
DOCUMENT_CHARACTERS = 8000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tokenizer = Tokenizer.from_pretrained(options.model)
    shape = shape_of(read_json(options.model / "config.json", fix=""))
    each = math.ceil(options.windows * shape.context / len(options.texts))
    ids = [id_ for path in options.texts for id_ in _ids(path, tokenizer, each)]
    windows = [
        ids[i : i + shape.context] for i in range(0, len(ids) - shape.context, shape.context)
    ]
    perplexity = {
        dtype: _perplexity(
            NativeRunner.from_folder(options.model, vocab_size=tokenizer.vocab_size, dtype=dtype),
            windows,
        )
        for dtype in DTYPES
    }
    report = {
        "model": {"parameters_in_matrices": _parameters(shape.tensors()), "layers": shape.layers},
        "texts": [path.name for path in options.texts],
        "scored_ids": sum(len(window) - 1 for window in windows),
        "perplexity": perplexity,
        "ratio_to_bf16": {d: perplexity[d] / perplexity["bfloat16"] for d in DTYPES},
    }
    print(json.dumps(report, indent=2))
    path = options.out or RESULTS / f"{datetime.date.today()}-quantization.json"
    write_result(path, __doc__.split("\n", 1)[0], torch.device("cpu"), report)


def _ids(path: Path, tokenizer: Tokenizer, most: int) -> list[int]:
    ids: list[int] = []
    for text in _documents(path):
        ids += [*tokenizer.encode(text[:DOCUMENT_CHARACTERS]), tokenizer.eot_id]
        if len(ids) >= most:
            break
    return ids[:most]


def _documents(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _perplexity(runner: NativeRunner, windows: list[list[int]]) -> float:
    total, count = 0.0, 0
    for window in windows:
        rows = runner.compute([Work(1, 0, window, len(window))])[:-1].astype(np.float64)
        most = rows.max(axis=1)
        log_sums = most + np.log(np.exp(rows - most[:, None]).sum(axis=1))
        total += float((log_sums - rows[np.arange(len(rows)), window[1:]]).sum())
        count += len(rows)
    return math.exp(total / count)


def _parameters(tensors: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in tensors.values() if len(shape) == 2)


if __name__ == "__main__":
    main()
