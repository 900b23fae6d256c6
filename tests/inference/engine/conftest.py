"""An engine of a tiny model, with limits of one's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.runner import Runner
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM

MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(llm: LLM) -> MakeEngine:
    def make(runner: Runner | None = None, slots: int = 64, **limits: int) -> Engine:
        return Engine(
            runner or TorchRunner(llm.model, llm.tokenizer.vocab_size, slots=slots),
            llm.tokenizer,
            context=llm.context_length,
            eos_ids=llm.eos_ids,
            **limits,
        )

    return make
