"""Answers in the shapes of OpenAI's completions, whole and as chunks of a stream."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tallyformer.inference.outputs import FinishReason, Output, Piece
from tallyformer.server import sse
from tallyformer.server.api_error import ApiError
from tallyformer.server.token_logprobs import LogprobShape

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
        model: as the request named it.
        fingerprint: equal as long as the same seed gives the same answer.
        answer_id: makes the answer's own id.
        created: seconds since 1970.
    """

    kind: AnswerKind
    model: str
    fingerprint: str
    answer_id: str = field(default_factory=lambda: os.urandom(16).hex())
    created: int = field(default_factory=lambda: int(time.time()))

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


class AnswerShape(Protocol):
    """How answers are written, whole or as the events of a stream."""

    @property
    def answer_id(self) -> str:
        """The id in the body and in all events."""

    def whole(self, outputs: Sequence[Output], usage: AnswerUsage) -> Any:
        """The body of answers that are not streamed; one output a choice."""

    def begin(self) -> bytes:
        """The first events, possibly none."""

    def piece(self, index: int, piece: Piece) -> bytes:
        """The events of a piece of one choice, possibly none."""

    def end(self, usage: AnswerUsage) -> bytes:
        """The last events, once all choices have ended."""

    def failed(self, error: ApiError) -> bytes:
        """The last event, where the answers end with an error."""


class CompletionShape:
    """Chat and text completions.

    A stream's chunks are made from bytes that are put together once: only the text is new in each.

    Args:
        head: what all parts share.
        echo: texts before the answers, one a choice.
        logprobs: how log-probabilities are written, if they are wanted; those of the prompt come
            with what is echoed.
        prompts: ids of what is echoed, one a choice, where log-probabilities are wanted.
        usage: whether a stream's client asked for it; all chunks then have a place for it.
        prompt_tokens: of all prompts, where that place has the usage until then; else it is null.
    """

    def __init__(
        self,
        head: AnswerHead,
        *,
        echo: Sequence[str],
        usage: bool,
        logprobs: LogprobShape | None = None,
        prompts: Sequence[Sequence[int]] = (),
        prompt_tokens: int | None = None,
    ) -> None:
        self._head = head
        self._echo = echo
        self._usage = usage
        self._logprobs = logprobs
        self._prompts = prompts
        self._prompt_tokens = prompt_tokens
        self._generated = 0
        self._after = b'],"usage":null}' if usage else b"]}"

    @functools.cached_property
    def _before(self) -> bytes:
        """What each chunk has before its choice."""
        empty = sse.json_bytes({**self._head.fields(chunk=True), "choices": []})
        return empty.removesuffix(b"]}")

    @property
    def answer_id(self) -> str:
        """The id in the body and in all chunks."""
        return str(self._head.fields(chunk=True)["id"])

    def whole(self, outputs: Sequence[Output], usage: AnswerUsage) -> dict[str, Any]:
        """The body: all choices."""
        choices = [
            self._choice(index, text + output.text, output.finish_reason, self._of(index, output))
            for index, (text, output) in enumerate(zip(self._echo, outputs, strict=True))
        ]
        return {**self._head.fields(chunk=False), "choices": choices, "usage": usage.body}

    def begin(self) -> bytes:
        """Who speaks, once a choice; of a text what is echoed, or nothing."""
        _ = self._before  # made now, while the prompt is computed, and not before the first text
        if self._head.kind == "chat":
            delta = {"role": "assistant", "content": "", "refusal": None}
            return b"".join(self._chunk(i, {"delta": delta}) for i in range(len(self._echo)))
        if self._logprobs is not None:
            return b""
        echoed = (self._text(index, text) for index, text in enumerate(self._echo) if text)
        return b"".join(echoed)

    def piece(self, index: int, piece: Piece) -> bytes:
        """Text that is certain; then, without text, why a choice ends."""
        self._generated += len(piece.token_ids)
        written = self._prompt(index, piece)
        logprobs = None
        if self._logprobs is not None:
            logprobs = self._logprobs(index, piece.token_ids, piece.logprobs)
        if piece.text:
            written += self._text(index, piece.text, logprobs)
            logprobs = None
        if piece.finish_reason is None:
            return written
        nothing: dict[str, Any] = {"delta": {}} if self._head.kind == "chat" else {"text": ""}
        return written + self._chunk(index, nothing, piece.finish_reason, logprobs=logprobs)

    def end(self, usage: AnswerUsage) -> bytes:
        """The usage in a chunk without choices, if it was asked for, and the mark of the end."""
        if not self._usage:
            return sse.DONE
        body = {**self._head.fields(chunk=True), "choices": [], "usage": usage.body}
        return sse.event(sse.json_bytes(body)) + sse.DONE

    def failed(self, error: ApiError) -> bytes:
        """An event that the official clients raise."""
        return sse.event(sse.json_bytes(error.envelope))

    def _prompt(self, index: int, piece: Piece) -> bytes:
        """What is echoed with its log-probabilities, which come with the first piece."""
        if self._logprobs is None or not piece.prompt_logprobs:
            return b""
        logprobs = self._logprobs(index, self._prompts[index], piece.prompt_logprobs)
        return self._text(index, self._echo[index], logprobs)

    def _of(self, index: int, output: Output) -> dict[str, Any] | None:
        """The log-probabilities of a whole choice, those of an echoed prompt first."""
        if self._logprobs is None:
            return None
        prompt = output.prompt_logprobs
        ids = [*(output.prompt_token_ids if prompt else ()), *output.token_ids]
        return self._logprobs(index, ids, [*prompt, *output.logprobs])

    def _choice(
        self, index: int, text: str, reason: FinishReason, logprobs: dict[str, Any] | None
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self._head.kind == "chat":
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}

    def _text(self, index: int, text: str, logprobs: dict[str, Any] | None = None) -> bytes:
        said = {"delta": {"content": text}} if self._head.kind == "chat" else {"text": text}
        return self._chunk(index, said, logprobs=logprobs)

    def _chunk(
        self,
        index: int,
        said: dict[str, Any],
        reason: FinishReason | None = None,
        *,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}
        after = self._after
        if self._prompt_tokens is not None:
            used = AnswerUsage(prompt=self._prompt_tokens, completion=self._generated)
            after = b'],"usage":' + sse.json_bytes(used.body) + b"}"
        return sse.event(self._before + sse.json_bytes(choice) + after)
