"""An engine of a tiny model, with limits of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.runner import Runner
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.native.available import available
from tallyformer.inference.native.runner import NativeRunner

MakeEngine = Callable[..., Engine]


@pytest.fixture(params=["torch", "native"])
def make_engine(llm: LLM, request: pytest.FixtureRequest) -> MakeEngine:
    """The same laws hold for both runners."""
    if request.param == "native" and (reason := available()):
        pytest.skip(reason)

    def make_runner(slots: int) -> Runner:
        vocab_size = llm.tokenizer.vocab_size
        if request.param == "torch":
            return TorchRunner(llm.model, vocab_size, slots=slots)
        folder = Path(llm.model.config.name_or_path)
        return NativeRunner.from_folder(folder, vocab_size=vocab_size, slots=slots)

    def make(runner: Runner | None = None, slots: int = 64, **limits: int) -> Engine:
        return Engine(
            runner or make_runner(slots),
            llm.tokenizer,
            context=llm.context_length,
            eos_ids=llm.eos_ids,
            **limits,
        )

    return make
