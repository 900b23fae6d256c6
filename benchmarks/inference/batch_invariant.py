"""What `batch_invariant` costs with torch on a CPU, where it holds with one thread.

    python benchmarks/inference/batch_invariant.py

One model of 51M with random weights, loaded with the option and without, takes turns. Tokens per
second are of whole calls with short prompts, the first token is that of one prompt of 128. On a
GPU `benchmarks/gpu/inference.py` measures the same.

Writes benchmarks/results/<date>-batch-invariant.json, or the file of --out; --rehearse takes a
tiny model, and shows that it runs.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

from generation import REHEARSAL, Size, make_model
from measuring import interleaved, seconds_of, spread, write_result

from inference import answers_of, prompts
from tallyformer.inference.engine.torch_runner import SLOTS
from tallyformer.inference.llm import LLM

RESULTS = Path(__file__).parents[1] / "results"
TOKENS = {1: 32, 16: 32, SLOTS: 16}
"""Of an answer, by the number of streams."""
CALLS = {
    **{f"{streams} streams": (streams, 4, tokens) for streams, tokens in TOKENS.items()},
    "first token after 128": (1, 128, 1),
}
"""Streams, ids of a prompt and of an answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), REHEARSAL if options.rehearse else Size())
        made = {
            name: answers_of(
                LLM.from_pretrained(
                    folder, options.dtype, device, "torch", batch_invariant=name == "invariant"
                )
            )
            for name in ("usual", "invariant")
        }
    found: dict[str, Any] = {}
    for what, (streams, length, tokens) in CALLS.items():
        ids = prompts(streams, min(length, 16) if options.rehearse else length)
        calls = {name: functools.partial(of, ids, tokens) for name, of in made.items()}
        for call in calls.values():
            call()
        able = {name: functools.partial(seconds_of, call, device) for name, call in calls.items()}
        found[what] = interleaved(able, options.rounds)
        pairs = zip(*(found[what][name]["all"] for name in ("invariant", "usual")), strict=True)
        found[what]["times_as_long"] = spread([invariant / usual for invariant, usual in pairs])
    summary = [
        f"{what}: {of['times_as_long']['median']:.2f} times as long ("
        f"{of['times_as_long']['least']:.2f} to {of['times_as_long']['most']:.2f})"
        for what, of in found.items()
    ]
    print("\n".join(summary))
    date = datetime.date.today().isoformat()
    values = {"dtype": options.dtype, "slots": SLOTS, "seconds": found, "summary": summary}
    out = options.out or RESULTS / f"{date}-batch-invariant.json"
    write_result(out, "what batch_invariant costs with torch on a CPU, one thread", device, values)


if __name__ == "__main__":
    main()
