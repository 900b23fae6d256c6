"""What a model in training is asked at each validation, and how it answers: as any model does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tallyformer.config.training import TrainSection
from tallyformer.data.pairs import Pair
from tallyformer.data.shards import Shards
from tallyformer.evaluation.responses import spread
from tallyformer.evaluation.samples import Question, beginnings_of_texts, questions_of_pairs
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.torch_model import with_torch
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.samples import TakeSamples

COUNT = 3
"""Samples that are taken where the recipe names no prompts."""
_BEGINNING_IDS = 128
"""Ids of a document that are read for its beginning."""


def continuations(
    model: Any, tokenizer: Tokenizer, section: TrainSection, shards: Shards
) -> TakeSamples | None:
    """Has a model continue the section's prompts, or else beginnings of validation texts."""
    return _samples(
        model,
        tokenizer,
        section,
        held_out=lambda: beginnings_of_texts(validation_texts(shards, tokenizer), COUNT),
        chat=False,
    )


def answers(
    model: Any, tokenizer: Tokenizer, section: TrainSection, held_out: Sequence[Pair]
) -> TakeSamples | None:
    """Has a model answer the section's prompts, or else questions that it is not trained on."""
    return _samples(
        model,
        tokenizer,
        section,
        held_out=lambda: questions_of_pairs(spread(held_out, COUNT)),
        chat=True,
    )


def validation_texts(shards: Shards, tokenizer: Tokenizer) -> Iterator[str]:
    """Beginnings of validation documents, from all sources in turn."""
    streams = [s.first_ids(_BEGINNING_IDS) for s in shards.validation.values() if s.tokens]
    for ids in itertools.chain.from_iterable(itertools.zip_longest(*streams)):
        if ids is not None:
            yield tokenizer.decode(ids.tolist())


def _samples(
    model: Any,
    tokenizer: Tokenizer,
    section: TrainSection,
    *,
    held_out: Callable[[], list[Question]],
    chat: bool,
) -> TakeSamples | None:
    if not section.sample_tokens:
        return None
    questions = [Question(prompt) for prompt in section.sample_prompts] or held_out()
    if not questions:
        return None

    def take() -> list[Mapping[str, str]]:
        # Not the runner that is fastest: on a GPU that one takes a quarter of the free memory.
        ready = with_torch(model, tokenizer, runner=TorchRunner(model, tokenizer.vocab_size))
        llm = LLM(ready, tokenizer)
        params = SamplingParams(max_tokens=section.sample_tokens, temperature=0.0)
        prompts: list[Any] = [question.text for question in questions]
        if chat:
            params, prompts = llm.chat_params(params), [llm.chat_prompt(p) for p in prompts]
        outputs = llm.generate(prompts, params)
        return [
            {"prompt": q.text, "text": output.text.strip(), "expected": q.expected}
            for q, output in zip(questions, outputs, strict=True)
        ]

    return take
