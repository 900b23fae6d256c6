"""A model's folder, asked in this process."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tallyformer.bench.target import Counts, RequestFailed
from tallyformer.bench.words import prompt_of_words
from tallyformer.inference.async_llm import AsyncLLM
from tallyformer.inference.llm import LLM
from tallyformer.keyed_random import key_of


class ModelTarget:
    """A `Target`: the engine of `LLM`, without HTTP. Sampling is as the folder wants it.

    Args:
        llm: the model.
        name: what the report calls it.
    """

    def __init__(self, llm: LLM, name: str) -> None:
        self.name = name
        self.facts: dict[str, Any] = {
            "dtype": llm.dtype,
            "device": llm.device,
            "runner": llm.runner_name,
            "context": llm.context_length,
        }
        if (gpu := _gpu(llm.device)) is not None:
            self.facts["gpu"] = gpu
        self._llm = llm
        self._answers = AsyncLLM(llm)

    @classmethod
    def load(cls, folder: Path, **how: Any) -> ModelTarget:
        """Load a folder. Args, errors: as for `LLM.from_pretrained`."""
        return cls(LLM.from_pretrained(folder, **how), str(folder))

    async def prepare(self, prompt_tokens: int) -> bool:
        """Whether the context is long enough; of a longer prompt the end alone would be read."""
        return prompt_tokens <= self._llm.context_length

    def prompt(self, tokens: int, *key: int | str) -> Any:
        """So many ids, and the seed of the answer."""
        ids = self._llm.tokenizer.encode(prompt_of_words(tokens, *key))[:tokens]
        return ids, key_of("answer", *key) >> 1

    async def ask(self, prompt: Any, output_tokens: int, heard: Callable[[], None]) -> Counts:
        """Have one prompt answered."""
        ids, seed = prompt
        params = dataclasses.replace(
            self._llm.default_params, max_tokens=output_tokens, ignore_eos=True, seed=seed
        )
        tokens = 0
        try:
            async with contextlib.aclosing(self._answers.stream(ids, params)) as pieces:
                async for piece in pieces:
                    tokens += len(piece.token_ids)
                    if piece.text:
                        heard()
        except MemoryError:
            raise RequestFailed("out of memory") from None
        return Counts(len(ids), tokens)

    async def close(self) -> None:
        """End the engine's thread."""
        await self._answers.close(drain=False)


def _gpu(device: str) -> str | None:
    """The name of an NVIDIA GPU, if the device is one."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device)
