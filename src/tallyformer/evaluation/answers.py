"""Asking a chat model questions, all at once, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.progress import progress_bar

Ask = Callable[[Sequence[Any]], list[str]]
"""Questions, each a text or the messages of a conversation, to answers, in the same order."""


def greedy_answers(llm: LLM, *, max_tokens: int, label: str) -> Ask:
    """A function that asks each question, a text as the first user's message, greedily."""
    params = llm.chat_params(SamplingParams(max_tokens=max_tokens, temperature=0.0))

    def ask(questions: Sequence[Any]) -> list[str]:
        with progress_bar(label, len(questions), "question") as bar:
            prompts = [llm.chat_prompt(question) for question in questions]
            outputs = llm.generate(prompts, params, on_finished=bar.update)
        return [output.text.strip() for output in outputs]

    return ask


def greedy_continuations(llm: LLM, *, max_tokens: int) -> Ask:
    """A function that continues each text greedily; for models that know no conversations."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)

    def ask(texts: Sequence[str]) -> list[str]:
        return [output.text.strip() for output in llm.generate(list(texts), params)]

    return ask
