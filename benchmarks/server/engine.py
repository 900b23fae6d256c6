"""The engine alone, as a process: `AsyncLLM` in an event loop, asked as `load.py` asks a server.

    python engine.py FOLDER

Reads a load as one JSON object a line and answers with one, as `load.py` does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop
from load import told

from tallyformer.bench.loads import closed_loop
from tallyformer.bench.model_target import ModelTarget
from tallyformer.bench.words import prompt_of_words


async def main() -> None:
    target = ModelTarget.load(Path(sys.argv[1]))
    await target.ask(target.prompt(1, "warm"), 1, lambda: None)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answered(target, json.loads(line))), flush=True)
    await target.close()


async def answered(target: ModelTarget, asked: dict[str, Any]) -> dict[str, Any]:
    # Texts, as a server gets: turning them into ids is no cost of HTTP.
    prompts = (
        (prompt_of_words(asked["prompt_tokens"], "server", 0, number), number)
        for number in range(1_000_000)
    )
    record = await closed_loop(
        lambda prompt, heard: target.ask(prompt, asked["output_tokens"], heard),
        prompts,
        streams=asked["streams"],
        seconds=asked["seconds"],
        warmup=asked["warmup"],
        timeout=120.0,
    )
    return told(record)


if __name__ == "__main__":
    uvloop.run(main())
