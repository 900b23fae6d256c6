"""Answers in the shape of OpenAI's Responses, whole and as named events.

response.created, response.in_progress, response.output_item.added, response.content_part.added,
response.output_text.delta ..., response.output_text.done, response.content_part.done,
response.output_item.done, response.completed or response.incomplete
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tallyformer.inference.outputs import FinishReason, Output, Piece, TokenLogprob
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server import sse
from tallyformer.server.answers import AnswerHead, AnswerUsage
from tallyformer.server.api_error import ApiError
from tallyformer.server.schemas.responses import ResponsesRequest
from tallyformer.server.token_logprobs import ChatLogprobs


class ResponseShape:
    """One answer of `/v1/responses`.

    Args:
        head: what all parts share.
        body: the request, of which much is sent back.
        params: how the answer is sampled.
        logprobs: how log-probabilities are written, if they are wanted.
    """

    def __init__(
        self,
        head: AnswerHead,
        body: ResponsesRequest,
        params: SamplingParams,
        *,
        logprobs: ChatLogprobs | None = None,
    ) -> None:
        self._head = head
        self._body = body
        self._params = params
        self._message_id = f"msg_{head.answer_id}"
        self._sent = 0
        self._text = ""
        self._logprobs = logprobs
        self._entries: list[dict[str, Any]] = []
        self._reason: FinishReason = "stop"

    @property
    def answer_id(self) -> str:
        """The id of the response."""
        return f"resp_{self._head.answer_id}"

    def whole(self, outputs: Sequence[Output], usage: AnswerUsage) -> dict[str, Any]:
        """The body."""
        self._text, self._reason = outputs[0].text, outputs[0].finish_reason
        self._score(outputs[0].logprobs)
        return self._finished(usage)

    def begin(self) -> bytes:
        """All that precedes the text."""
        response = self._response("in_progress")
        return b"".join(
            (
                self._event("response.created", response=response),
                self._event("response.in_progress", response=response),
                self._of_item("response.output_item.added", item=self._item("in_progress", [])),
                self._of_part("response.content_part.added", part=_part("", [])),
            )
        )

    def piece(self, index: int, piece: Piece) -> bytes:
        """Text that is certain, with the entries of its tokens; at the end these may come alone."""
        self._text += piece.text
        scored = self._score(piece.logprobs)
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason
        if not piece.text and not scored:
            return b""
        return self._of_part("response.output_text.delta", delta=piece.text, logprobs=scored)

    def end(self, usage: AnswerUsage) -> bytes:
        """The whole text again, in every part that holds it."""
        part = _part(self._text, self._entries)
        response = self._finished(usage)
        return b"".join(
            (
                self._of_part("response.output_text.done", text=self._text, logprobs=self._entries),
                self._of_part("response.content_part.done", part=part),
                self._of_item("response.output_item.done", item=self._item(self._status, [part])),
                self._event(f"response.{self._status}", response=response),
            )
        )

    def failed(self, error: ApiError) -> bytes:
        """An event that the official client raises."""
        told = {"code": error.code, "message": error.message, "param": error.param}
        return self._event("error", **told, **error.envelope)

    def _score(self, logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        """Entries of the next tokens, which the whole text has too; none where none are wanted."""
        entries = self._logprobs.entries(0, logprobs) if self._logprobs else []
        self._entries += entries
        return entries

    @property
    def _status(self) -> str:
        return "completed" if self._reason == "stop" else "incomplete"

    def _finished(self, usage: AnswerUsage) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.completion,
        }
        if usage.left_out:
            counts["context_left_out"] = usage.left_out
        response = self._response(self._status)
        response["output"] = [self._item(self._status, [_part(self._text, self._entries)])]
        response["usage"] = counts
        if self._status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        return response

    def _response(self, status: str) -> dict[str, Any]:
        body = self._body
        return {
            "id": self.answer_id,
            "object": "response",
            "created_at": self._head.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._head.model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": self._params.temperature,
            "text": {"format": self._format},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": self._params.top_p if body.top_p is None else body.top_p,
            "truncation": body.truncation,
            "usage": None,
            "user": body.user,
        }

    @property
    def _format(self) -> Any:
        given = self._body.text and self._body.text.format
        return given or {"type": "text"}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._message_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _of_part(self, name: str, **fields: Any) -> bytes:
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        return self._event(name, **place, **fields)

    def _of_item(self, name: str, **fields: Any) -> bytes:
        return self._event(name, output_index=0, **fields)

    def _event(self, name: str, **fields: Any) -> bytes:
        body = {"type": name, "sequence_number": self._sent, **fields}
        self._sent += 1
        return sse.event(sse.json_bytes(body), name=name)


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
