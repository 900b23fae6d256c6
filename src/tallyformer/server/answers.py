"""Answers in OpenAI's shapes, whole and as chunks of a stream.

A stream's chunks are made from bytes that are put together once: only the text is new in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tallyformer.inference.outputs import FinishReason, Output
from tallyformer.server import sse

AnswerKind = Literal["chat", "text"]
_OBJECTS = {
    "chat": ("chatcmpl-", "chat.completion", "chat.completion.chunk"),
    "text": ("cmpl-", "text_completion", "text_completion"),
}


@dataclass(frozen=True, kw_only=True)
class AnswerUsage:
    """How many tokens a request took.

    Attributes:
        prompt: of all prompts, each counted once.
        completion: of all answers.
        left_out: of the conversation, because they did not fit.
    """

    prompt: int
    completion: int
    left_out: int = 0

    @property
    def body(self) -> dict[str, int]:
        """As the API has it; what was left out is said only if something was."""
        counts = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        return {**counts, "context_left_out": self.left_out} if self.left_out else counts


@dataclass(frozen=True, kw_only=True)
class AnswerHead:
    """What all parts of an answer share.

    Attributes:
        kind: a chat's answer or a continued text.
        answer_id: makes the answer's own id.
        created: seconds since 1970.
        model: as the request named it.
        fingerprint: equal as long as the same seed gives the same answer.
    """

    kind: AnswerKind
    answer_id: str
    created: int
    model: str
    fingerprint: str

    def fields(self, *, chunk: bool) -> dict[str, Any]:
        """The beginning of a body or chunk."""
        prefix, whole, part = _OBJECTS[self.kind]
        return {
            "id": prefix + self.answer_id,
            "object": part if chunk else whole,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def whole_answer(
    head: AnswerHead, outputs: Sequence[Output], usage: AnswerUsage, echo: Sequence[str] = ()
) -> dict[str, Any]:
    """The body of an answer that is not streamed.

    Args:
        head: what all share.
        outputs: one a choice.
        usage: of the request.
        echo: texts before each answer, or none.
    """
    before = echo or [""] * len(outputs)
    choices = [
        _choice(head.kind, index, text + output.text, output.finish_reason)
        for index, (text, output) in enumerate(zip(before, outputs, strict=True))
    ]
    return {**head.fields(chunk=False), "choices": choices, "usage": usage.body}


def _choice(kind: AnswerKind, index: int, text: str, reason: FinishReason) -> dict[str, Any]:
    if kind == "chat":
        said = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": said, "logprobs": None, "finish_reason": reason}
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


class ChunkWriter:
    """A stream's events as bytes.

    Args:
        head: what all chunks share.
        usage: whether the client asked for it; all chunks then have a place for it.
    """

    def __init__(self, head: AnswerHead, *, usage: bool) -> None:
        self._head = head
        self._usage = usage
        empty = sse.json_bytes({**head.fields(chunk=True), "choices": []})
        self._before = empty.removesuffix(b"]}")
        self._after = b'],"usage":null}' if usage else b"]}"

    def opening(self, index: int) -> bytes:
        """The first chunk of a choice: who speaks. A continued text has none."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._chunk(self._delta(index, delta, None))

    def text(self, index: int, text: str) -> bytes:
        """Text that is certain."""
        if self._head.kind == "chat":
            return self._chunk(self._delta(index, {"content": text}, None))
        return self._chunk(self._part(index, text, None))

    def finish(self, index: int, reason: FinishReason) -> bytes:
        """The last chunk of a choice: why it ends, and no text."""
        if self._head.kind == "chat":
            return self._chunk(self._delta(index, {}, reason))
        return self._chunk(self._part(index, "", reason))

    def usage(self, usage: AnswerUsage) -> bytes:
        """The chunk without choices, if the client asked for it."""
        if not self._usage:
            return b""
        body = {**self._head.fields(chunk=True), "choices": [], "usage": usage.body}
        return sse.event(sse.json_bytes(body))

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return sse.event(self._before + sse.json_bytes(choice) + self._after)

    @staticmethod
    def _delta(index: int, delta: dict[str, Any], reason: FinishReason | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}

    @staticmethod
    def _part(index: int, text: str, reason: FinishReason | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
