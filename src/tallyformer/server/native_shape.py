"""Answers in the shape of llama.cpp's `/completion`, whole and as a stream."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from tallyformer.inference.outputs import FinishReason, Output, Piece, TokenLogprob
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.server import sse
from tallyformer.server.answers import AnswerUsage
from tallyformer.server.api_error import ApiError
from tallyformer.tokenizer.tokenizer import Tokenizer

_SETTINGS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
)

_ABSENT = object()


class NativeShape:
    """The answers to the prompts of one request.

    Args:
        model: its name.
        tokenizer: its tokenizer.
        prompts: ids of each prompt.
        params: how they are answered.
        single: there was one prompt, not a list of prompts.
        return_tokens: give ids in whole answers too; a stream always has them.
        fields: give these alone of a whole answer, and of a stream's end; all without them.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        single: bool,
        return_tokens: bool,
        fields: Sequence[str] | None = None,
    ) -> None:
        self.answer_id = f"cmpl-{uuid.uuid4().hex}"
        self._model = model
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._params = params
        self._single = single
        self._return_tokens = return_tokens
        self._fields = fields
        self._ids: list[list[int]] = [[] for _ in prompts]
        self._texts = ["" for _ in prompts]

    def whole(self, outputs: Sequence[Output], usage: AnswerUsage) -> Any:
        """The body: one answer, or a list of them."""
        answers = []
        for index, output in enumerate(outputs):
            end = self._end(index, output.text, output.token_ids, output.finish_reason)
            ids = output.token_ids if self._return_tokens else []
            probabilities = self._probabilities(output.logprobs)
            answer = {**end, "content": output.text, "tokens": ids, **probabilities}
            answers.append(self._chosen(answer))
        return answers[0] if self._single else answers

    def begin(self) -> bytes:
        """Nothing precedes the text."""
        return b""

    def piece(self, index: int, piece: Piece) -> bytes:
        """Text that is certain; then why it ends."""
        self._ids[index] += piece.token_ids
        self._texts[index] += piece.text
        written = b""
        if piece.text or piece.finish_reason is None:
            chunk = {
                "index": index,
                "content": piece.text,
                "tokens": piece.token_ids,
                "stop": False,
                **self._counts(index, len(self._ids[index])),
                **self._probabilities(piece.logprobs),
            }
            written = sse.event(sse.json_bytes(chunk))
        if piece.finish_reason is None:
            return written
        end = self._end(index, self._texts[index], self._ids[index], piece.finish_reason)
        # Tokens of which no text came, as those of a stop string.
        rest: dict[str, Any] = {"tokens": []}
        if not piece.text:
            rest = {"tokens": piece.token_ids, **self._probabilities(piece.logprobs)}
        last = self._chosen({**end, "content": "", **rest})
        return written + sse.event(sse.json_bytes(last))

    def end(self, usage: AnswerUsage) -> bytes:
        """Nothing follows the last text."""
        return b""

    def failed(self, error: ApiError) -> bytes:
        """The last event, where the answers end with an error."""
        return sse.event(sse.json_bytes(error.envelope))

    def _end(self, index: int, text: str, ids: list[int], reason: FinishReason) -> dict[str, Any]:
        counts = self._counts(index, len(ids))
        return {
            "index": index,
            "id_slot": -1,
            "stop": True,
            "model": self._model,
            **counts,
            "generation_settings": self._settings,
            "prompt": self._tokenizer.decode(self._prompts[index]),
            "has_new_line": "\n" in text,
            "truncated": False,
            "stop_type": self._why(ids, reason),
            "timings": {"prompt_n": len(self._prompts[index]), "predicted_n": len(ids)},
        }

    def _chosen(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The fields that are wanted, those of objects within named by a path."""
        if not self._fields:
            return answer
        found = {path: _at(answer, path.split("/")) for path in self._fields}
        return {path: value for path, value in found.items() if value is not _ABSENT}

    def _counts(self, index: int, generated: int) -> dict[str, int]:
        return {"tokens_predicted": generated, "tokens_evaluated": len(self._prompts[index])}

    def _why(self, ids: list[int], reason: FinishReason) -> str:
        if reason == "length":
            return "limit"
        return (
            "word"
            if self._params.stop and ids and ids[-1] not in self._tokenizer.control_ids
            else "eos"
        )

    @property
    def _settings(self) -> dict[str, Any]:
        shown = {name: getattr(self._params, name) for name in _SETTINGS}
        shown["stop"] = list(self._params.stop)
        shown["logit_bias"] = self._bias
        shown["repeat_penalty"] = self._params.repetition_penalty
        return {**shown, "n_predict": self._params.max_tokens}

    @property
    def _bias(self) -> list[dict[str, Any]]:
        """What is added to logits; null stands for a token that never comes."""
        bias: dict[int, float | None] = dict(self._params.logit_bias)
        if self._params.ignore_eos:
            bias[self._tokenizer.eot_id] = None
        return [{"token": token_id, "bias": added} for token_id, added in bias.items()]

    def _probabilities(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        if not logprobs:
            return {}
        entries = [
            {
                **self._entry(one.id, one.logprob),
                "top_logprobs": [self._entry(*other) for other in one.alternatives],
            }
            for one in logprobs
        ]
        return {"completion_probabilities": entries}

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        spelled = self._tokenizer.bytes_of(token_id)
        token = spelled.decode("utf-8", errors="replace")
        return {"id": token_id, "token": token, "bytes": list(spelled), "logprob": logprob}


def _at(answer: Any, path: Sequence[str]) -> Any:
    """What is at a path, or `_ABSENT`."""
    for name in path:
        if not isinstance(answer, dict) or name not in answer:
            return _ABSENT
        answer = answer[name]
    return answer
