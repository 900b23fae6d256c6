"""`tallyformer serve` against other servers of the OpenAI API, on this machine's CPU.

    python benchmarks/inference/make_models.py --tokenizer GPT2_FOLDER --out DIR
    python benchmarks/server/peers.py --model DIR/llama-safetensors-int8 \\
        --peer "llama.cpp=llama-server -m DIR/llama-gguf-q8_0/model.gguf --port {port} \\
            --parallel 64 --ctx-size 16384 --threads 2" \\
        --peer "vllm=env VLLM_CPU_KVCACHE_SPACE=1 \\
            vllm serve DIR/llama --dtype bfloat16 --port {port}"

Every peer is a command, in which {port} becomes a free one. All servers run at the same time, but
one is asked at a time, by the same generator, which is a process of its own and shares all cores
with the server. They take turns for several rounds, in the opposite order every other round. A
client sends its next request when it has its answer; requests/s count whole answers of exactly the
wanted length. A ratio is that of medians to those of the better peer, in each measure; the least
and the most of one round are given too.

Writes benchmarks/results/<date>-server-peers.json, or the file of --out; --rehearse takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from serving import HERE, Found, Server, free_port, serving, started

sys.path.insert(0, str(HERE.parent / "gpu"))

from measuring import spread, write_result

RESULTS = HERE.parent / "results"
OURS = "tallyformer"
MEASURES = {"requests_per_second": ">= 1.5", "p95_ttft_ms": ">= 1.5 times shorter"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder to serve")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--clients", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.rehearse:
        options.seconds, options.rounds = 1.0, 1
        options.prompt_tokens, options.output_tokens = 1, 8
    peers = dict(peer.split("=", 1) for peer in options.peer)
    with contextlib.ExitStack() as running:
        servers = {OURS: running.enter_context(serving(options.model))}
        for name, command in peers.items():
            servers[name] = running.enter_context(_peer(command))
        compared = {
            f"{clients} clients": _compared(_rounds(servers, clients, options))
            for clients in options.clients
        }
    path = options.out or RESULTS / f"{datetime.date.today()}-server-peers.json"
    lengths = {name: getattr(options, name) for name in ("prompt_tokens", "output_tokens")}
    report = {"model": options.model.name, **lengths, "seconds": options.seconds, **compared}
    write_result(path, __doc__.split("\n", 1)[0], None, report)


def _peer(command: str) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    words = shlex.split(command.replace("{port}", str(port)))
    return started(words, port, completions=True)


def _rounds(
    servers: dict[str, Server], clients: int, options: argparse.Namespace
) -> dict[str, list[Found]]:
    load = {
        "do": "closed",
        "streams": clients,
        "seconds": options.seconds,
        "prompt_tokens": options.prompt_tokens,
        "output_tokens": options.output_tokens,
    }
    found: dict[str, list[Found]] = {name: [] for name in servers}
    for number in range(options.rounds):
        for name in list(servers)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(_measured(servers[name].ask({**load, "seed": number})))
            print(f"{clients} clients: {name} {json.dumps(found[name][-1])}", flush=True)
    return found


def _measured(seen: Found) -> Found:
    good = [row for row in seen["requests"] if not row[3]]
    first = sorted(1000 * row[1] for row in good)
    return {
        "requests_per_second": round(len(good) / seen["seconds"], 3),
        "p95_ttft_ms": round(first[int(0.95 * len(first))], 3) if first else None,
        "median_ttft_ms": round(statistics.median(first), 3) if first else None,
        "failed": sorted({row[3] for row in seen["requests"] if row[3]}),
        "generator_share_of_a_core": seen["generator_share_of_a_core"],
    }


def _compared(found: dict[str, list[Found]]) -> Found:
    row: Found = {"rounds": found}
    for measure, bar in MEASURES.items():
        values = {name: [one[measure] for one in several] for name, several in found.items()}
        of: Found = {"bar": bar, "servers": {name: spread(v) for name, v in values.items()}}
        if len(values) > 1:
            of |= _ratio(values, shorter_is_better=measure.endswith("_ms"))
        row[measure] = of
    return row


def _ratio(values: dict[str, list[float]], *, shorter_is_better: bool) -> Found:
    medians = {name: statistics.median(several) for name, several in values.items()}
    peers = [name for name in values if name != OURS]
    best = (min if shorter_is_better else max)(peers, key=medians.__getitem__)

    def ratio(ours: float, theirs: float) -> float:
        return round(theirs / ours if shorter_is_better else ours / theirs, 3)

    by_round: list[Any] = [ratio(*pair) for pair in zip(values[OURS], values[best], strict=True)]
    return {
        "best_peer": best,
        "ratio": ratio(medians[OURS], medians[best]),
        "ratio_by_round": [min(by_round), max(by_round)],
    }


if __name__ == "__main__":
    main()
