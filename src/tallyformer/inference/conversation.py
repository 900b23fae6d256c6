"""A conversation of several turns that always fits the model's context."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.fitting import check_system
from tallyformer.inference.llm import LLM
from tallyformer.inference.prompts import check_one_sample
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.quoting import quoted
from tallyformer.tokenizer.messages import Message

ANSWER_SHARE = 2
"""The history may fill the context but for 1/2 of it, so that an answer has room."""


class Chat:
    """The turns so far, and the next answer.

    The model sees the newest whole turns that leave half the context to the answer, after the
    instructions. Of a single question that is longer than that it sees the end.

    Args:
        llm: the model.
        params: settings of every answer.
        system: instructions before the first message that is kept.

    Raises:
        InvalidRequestError: the instructions are not text, or fill more than a quarter of the
            context.
    """

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None = None) -> None:
        check_one_sample(params)
        self._llm = llm
        self._params = llm.chat_params(params)
        self._system = system
        self._turns: list[Message] = []
        self._answering: Generator[str] | None = None
        check_system(llm.tokenizer, system, context=llm.context_length, answer_share=ANSWER_SHARE)

    def reset(self) -> None:
        """Forget all turns."""
        self.interrupt()
        self._turns = []

    def ask(self, question: str) -> Iterator[str]:
        """Yield the answer's text piece by piece, without the space that precedes it.

        The turn is remembered as far as the answer went, however it ended: at its end, by an
        error, by `interrupt`, or because the next question came. A question whose answer had not
        begun is forgotten.

        Raises:
            InvalidRequestError: the question is not text.
        """
        if not isinstance(question, str):
            raise InvalidRequestError(f"question: must be a text; it is {quoted(question)}")
        self.interrupt()
        self._answering = self._answer(question)
        return self._answering

    def interrupt(self) -> None:
        """Break off the answer that is being given, if there is one."""
        if self._answering is not None:
            self._answering.close()

    def prompt(self) -> list[int]:
        """Ids of the newest turns that fit, up to where the assistant's answer begins."""
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return self._llm.chat_prompt([*system, *self._turns], ANSWER_SHARE)

    def _answer(self, question: str) -> Generator[str]:
        self._turns.append({"role": "user", "content": question})
        answer = ""
        try:
            for piece in self._llm.stream(self.prompt(), self._params):
                text = piece.text if answer else piece.text.lstrip()
                answer += text
                if text:
                    yield text
        finally:
            if answer.strip():
                self._turns.append({"role": "assistant", "content": answer.strip()})
            else:
                self._turns.pop()
