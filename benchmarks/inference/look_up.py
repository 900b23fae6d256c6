"""What guessing ids from the text gains: one stream with `look_up` and without.

    python benchmarks/inference/look_up.py MODEL_FOLDER

MODEL_FOLDER is a trained model that answers questions, as runs/quickstart/model: what a model
without training writes says nothing about texts. Two kinds of answers, greedy, one after another:
worked examples, which repeat the numbers of their question, and facts, which repeat little. Every
round asks all questions with every setting, in an order that turns. Ids must be the same.

Writes benchmarks/results/<date>-look-up.json, or the file of --out.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

from measuring import spread, write_result

from tallyformer.corpus.questions import facts
from tallyformer.corpus.worked_examples import held_out_examples
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

RESULTS = Path(__file__).parents[1] / "results"
GUESSES = (0, 2, 4, 8)
MAX_TOKENS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", nargs="+", default=["float32", "int8"])
    parser.add_argument("--questions", type=int, default=40, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    asked = {
        "worked examples": [e.prompt for e in held_out_examples(options.questions, 0)],
        "facts": [fact.held_out[0] for fact in facts()[: options.questions]],
    }
    found: dict[str, Any] = {}
    for dtype in options.dtype:
        llm = LLM.from_pretrained(options.model, dtype=dtype, device="cpu")
        for kind, questions in asked.items():
            found[f"{kind}, {dtype}"] = compare(llm, questions, options.rounds)
            print(kind, dtype, found[f"{kind}, {dtype}"], flush=True)
    date = datetime.date.today().isoformat()
    summary = [
        f"{name}, {guessed} guessed: {of['speed_ratio']['median']:.2f} of the speed without, "
        f"{of['accepted_share']:.0%} of guesses right"
        for name, settings in found.items()
        for guessed, of in settings.items()
        if guessed != "0"
    ]
    values = {"model": options.model.name, "found": found, "summary": summary}
    out = options.out or RESULTS / f"{date}-look-up.json"
    write_result(out, "what guessing ids from the text gains", torch.device("cpu"), values)


def compare(llm: LLM, questions: list[str], rounds: int) -> dict[str, Any]:
    """Tokens/s and shares of right guesses for each number of guesses."""
    for guesses in GUESSES:
        answered(llm, questions[:2], guesses)
    runs: dict[int, list[dict[str, Any]]] = {guesses: [] for guesses in GUESSES}
    for number in range(rounds):
        for guesses in GUESSES[number % len(GUESSES) :] + GUESSES[: number % len(GUESSES)]:
            runs[guesses].append(answered(llm, questions, guesses))
    assert all(run["ids"] == runs[0][0]["ids"] for of in runs.values() for run in of)
    return {
        str(guesses): {
            "tokens_per_second": spread([run["speed"] for run in of]),
            "speed_ratio": spread(
                [run["speed"] / base["speed"] for run, base in zip(of, runs[0], strict=True)]
            ),
            "accepted_share": of[0]["accepted"] / max(of[0]["guessed"], 1),
            "guessed_per_token": of[0]["guessed"] / of[0]["tokens"],
        }
        for guesses, of in runs.items()
    }


def answered(llm: LLM, questions: list[str], guesses: int) -> dict[str, Any]:
    """All questions, one after another."""
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0, look_up=guesses)
    start = time.perf_counter()
    outputs = [llm.chat([{"role": "user", "content": text}], params) for text in questions]
    seconds = time.perf_counter() - start
    tokens = sum(len(output.token_ids) for output in outputs)
    return {
        "ids": [output.token_ids for output in outputs],
        "tokens": tokens,
        "speed": tokens / seconds,
        "guessed": sum(output.guessed for output in outputs),
        "accepted": sum(output.accepted for output in outputs),
    }


if __name__ == "__main__":
    main()
