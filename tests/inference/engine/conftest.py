"""An engine of a tiny model, with limits of one's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.runner import Runner, TorchRunner
from tallyformer.inference.llm import LLM

MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(llm: LLM) -> MakeEngine:
    def make(runner: Runner | None = None, **limits: int) -> Engine:
        return Engine(
            runner or TorchRunner(llm.model),
            llm.tokenizer,
            context=llm.context_length,
            eos_ids=llm.eos_ids,
            **limits,
        )

    return make
