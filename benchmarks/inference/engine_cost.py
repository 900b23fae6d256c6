"""What the engine's Python costs, in microseconds a token, beside what computes the model.

256 sequences of 256 tokens, all joined at once, with runners that leave the model's work out:

- `engine`: a runner that hands out ids and does nothing else. So it is the engine alone.
- `graphs`: `GraphRunner` without the work of its device: what it does on the host is left, copies
  to and from its persistent memory included. There is no launch in it, and no wait for a GPU.

Answers are taken whole (`LLM.generate`) or piece by piece (a receiver, as a server has); greedy,
sampled with top_k and top_p, and sampled with a stop string. Times are those of the processor, one
thread. Each round measures all of them in turn, each checkout in a process of its own.

    python benchmarks/inference/engine_cost.py [--before CHECKOUT]

CHECKOUT is a folder with an earlier version of this repository. The result goes to
benchmarks/results/DATE-engine-cost.json.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.versions import installed_versions
from tallyformer.evaluation.machine import describe_machine
from tallyformer.inference.engine.client import EngineClient, EngineRequest
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.runner import Choice
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.tokenizer import Tokenizer

HERE = Path(__file__)
STREAMS, TOKENS, CONTEXT = 256, 256, 512
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "seed": 1},
    "stop string": {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "seed": 1, "stop": ["\nUser:"]},
}
TEXT = "The yield of a bond is what it pays in a year, for each 100 € of its price, say. " * 9
VOCABULARY = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="an earlier checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", action="store_true", help="what a round starts")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure()))
        return
    checkouts = {"now": HERE.parents[2]}
    if options.before:
        checkouts["before"] = options.before
    rounds = [
        {name: _in_a_process(checkout) for name, checkout in checkouts.items()}
        for _ in range(options.rounds)
    ]
    result = {
        "what": "microseconds of the processor a token: the engine's Python, without a model",
        "streams": STREAMS,
        "tokens": TOKENS,
        "command": " ".join(["python", *sys.argv]),
        "machine": describe_machine(torch.device("cpu")),
        "versions": installed_versions(),
        "median": {name: _over(statistics.median, rounds, name) for name in checkouts},
        "least": {name: _over(min, rounds, name) for name in checkouts},
        "most": {name: _over(max, rounds, name) for name in checkouts},
        "rounds": rounds,
    }
    print(json.dumps(result["median"], indent=2))
    today = datetime.date.today().isoformat()
    write_json(HERE.parents[1] / "results" / f"{today}-engine-cost.json", result)


def _in_a_process(checkout: Path) -> dict[str, float]:
    source = str(checkout.absolute() / "src")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    command = [sys.executable, str(HERE), "--measure"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _over(
    which: Callable[[list[float]], float], rounds: Sequence[dict[str, dict[str, float]]], name: str
) -> dict[str, float]:
    return {key: round(which([r[name][key] for r in rounds]), 3) for key in rounds[0][name]}


def _measure() -> dict[str, float]:
    """Microseconds a token, by runner, settings and whether somebody reads as they come."""
    torch.set_num_threads(1)
    found = {}
    tokenizer = Tokenizer.train([TEXT], VOCABULARY)
    runners = {
        "engine": AtOnce(tokenizer.encode(TEXT)),
        "graphs": _without_a_device(tokenizer.encode("e")),
    }
    for runner_name, runner in runners.items():
        for settings_name, settings in SETTINGS.items():
            params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, **settings)
            for how, answer in {"whole": _whole, "streamed": _streamed}.items():
                client = EngineClient(Engine(runner, tokenizer, context=CONTEXT, eos_ids=()))
                asked = [EngineRequest([1 + i, 2, 3, 4], params) for i in range(STREAMS)]
                gc.collect()
                start = time.process_time()
                answer(client, asked)
                seconds = time.process_time() - start
                found[f"{runner_name}, {settings_name}, {how}"] = 1e6 * seconds / STREAMS / TOKENS
    return found


def _whole(client: EngineClient, asked: list[EngineRequest]) -> None:
    outputs = client.answer(asked)
    assert all(len(output.token_ids) == TOKENS for output in outputs)


def _streamed(client: EngineClient, asked: list[EngineRequest]) -> None:
    left = len(asked)

    def receive(got: Any) -> None:
        nonlocal left
        left -= bool(got.finish_reason)

    for one in asked:
        client.join(one, receive)
    client.advance(lambda: not left)


class AtOnce:
    """A `Runner` that computes nothing, and draws the ids of a text one after another."""

    slots = STREAMS
    prefill_chunk = None

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids
        self._step = 0

    def compute(self, work: Sequence[Any]) -> None:
        """Nothing."""

    def choose(self, logits: None, rows: Sequence[Any]) -> list[Choice]:
        """The same id for all."""
        self._step += 1
        chosen = self._ids[self._step % len(self._ids)]
        return [Choice(chosen) for _ in rows]

    def release(self, numbers: Collection[int]) -> None:
        """Nothing."""


def _without_a_device(ids: list[int]) -> Any:
    from tallyformer.inference.engine.graph_runner import GraphRunner
    from tallyformer.inference.torch_runners import static_shape
    from tallyformer.model.configuration_tallyformer import TallyFormerConfig
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = TallyFormerConfig(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, intermediate_size=8, **sizes
    )
    model = TallyFormerForCausalLM(config).eval()
    runner = GraphRunner(model, static_shape(model), VOCABULARY, slots=STREAMS)
    # All that its device does goes through this, so the same id is drawn always.
    runner._steps.ids.fill_(ids[0])
    runner._graphs.run = lambda name, work: None  # type: ignore[method-assign]
    # The prompts' windows come together, which is work of the device, too.
    runner._rows = lambda work, slots: [runner._steps.logits_SV[: len(work)]]  # type: ignore
    return runner


if __name__ == "__main__":
    main()
