"""A conversation of several turns that always fits the model's context."""

from __future__ import annotations

from collections.abc import Iterator

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.chat import Message

ANSWER_SHARE = 2
"""The history may fill the context but for 1/2 of it, so that an answer has room."""


class Chat:
    """The turns so far, and the next answer.

    The model sees the newest whole turns that leave half the context to the answer. A single
    question that is longer than that keeps its end.

    Args:
        llm: the model.
        params: settings of every answer.
        system: instructions before the first message that is kept.
    """

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None = None) -> None:
        self._llm = llm
        self._params = llm.chat_params(params)
        self._system = system
        self._turns: list[Message] = []
        self._answer = ""

    def reset(self) -> None:
        """Forget all turns."""
        self._turns = []

    def ask(self, question: str) -> Iterator[str]:
        """Yield the answer's text piece by piece, without the space that precedes it.

        The turn is remembered when the answer is complete, or `interrupt` is called.
        """
        self._turns.append({"role": "user", "content": question})
        self._answer = ""
        for piece in self._llm.stream(self.prompt(), self._params):
            text = piece.text if self._answer else piece.text.lstrip()
            self._answer += text
            if text:
                yield text
        self._remember()

    def interrupt(self) -> None:
        """Keep what there is of an answer that was broken off."""
        self._remember()

    def prompt(self) -> list[int]:
        """Ids of the newest turns that fit, up to where the assistant's answer begins."""
        room = self._llm.context_length - self._llm.context_length // ANSWER_SHARE
        for start in range(0, len(self._turns), 2):
            ids = self._llm.chat_prompt(self._with_system(self._turns[start:]))
            if len(ids) <= room:
                return ids
        return self._shortened(ids, room)

    def _shortened(self, ids: list[int], room: int) -> list[int]:
        """`<|user|>` and the end of a question that is too long by itself."""
        return [ids[0], *ids[len(ids) - room + 1 :]]

    def _with_system(self, turns: list[Message]) -> list[Message]:
        if self._system is None:
            return turns
        return [{"role": "system", "content": self._system}, *turns]

    def _remember(self) -> None:
        if self._answer.strip():
            self._turns.append({"role": "assistant", "content": self._answer.strip()})
        else:
            self._turns.pop()
