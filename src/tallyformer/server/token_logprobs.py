"""Log-probabilities of tokens in both of OpenAI's shapes, with the tokens' true bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tallyformer.inference.outputs import TokenLogprob
from tallyformer.tokenizer.tokenizer import Tokenizer


class LogprobShape(Protocol):
    """How the log-probabilities of some tokens of a choice are written."""

    def __call__(
        self, index: int, ids: Sequence[int], logprobs: Sequence[TokenLogprob | None]
    ) -> dict[str, Any]:
        """The value of a choice's `logprobs`.

        Args:
            index: of the choice; its tokens come in order.
            ids: of the tokens.
            logprobs: one for each; None for a prompt's first.
        """


class ChatLogprobs:
    """`{"content": [{"token", "logprob", "bytes", "top_logprobs"}]}`; control tokens have none.

    The tokens joined are the answer's text: the white space that it begins with, which is left out
    there, is left out here.

    Args:
        tokenizer: the model's.
        from_start: the answers begin here; else they continue something.
    """

    def __init__(self, tokenizer: Tokenizer, *, from_start: bool) -> None:
        self._tokenizer = tokenizer
        self._from_start = from_start
        self._begun: set[int] = set()

    def __call__(
        self, index: int, ids: Sequence[int], logprobs: Sequence[TokenLogprob | None]
    ) -> dict[str, Any]:
        """The value of a choice's `logprobs`."""
        return {"content": self.entries(index, logprobs), "refusal": None}

    def entries(self, index: int, logprobs: Sequence[TokenLogprob | None]) -> list[dict[str, Any]]:
        """One entry for each token of a choice that has a text."""
        scored = [
            entry
            for entry in logprobs
            if entry is not None and entry.id not in self._tokenizer.control_ids
        ]
        spelled = [self._tokenizer.bytes_of(entry.id) for entry in scored]
        first = self._from_start and index not in self._begun
        # A character of white space may be several tokens.
        space = _space_before(b"".join(spelled)) if first else 0
        entries = []
        for entry, whole in zip(scored, spelled, strict=True):
            kept = whole[space:]
            space -= len(whole) - len(kept)
            others = [
                (kept if token_id == entry.id else self._spelled(token_id, first=first), logprob)
                for token_id, logprob in entry.alternatives
            ]
            alternatives = [_entry(*other) for other in others]
            entries.append({**_entry(kept, entry.logprob), "top_logprobs": alternatives})
            first = first and not kept
        if not first:
            self._begun.add(index)
        return entries

    def _spelled(self, token_id: int, *, first: bool) -> bytes:
        spelled = self._tokenizer.bytes_of(token_id)
        return spelled[_space_before(spelled) :] if first else spelled


class TextLogprobs:
    """`{"tokens", "token_logprobs", "top_logprobs", "text_offset"}` of all tokens.

    Args:
        tokenizer: the model's.
        choices: how many; each counts its own characters.
    """

    def __init__(self, tokenizer: Tokenizer, choices: int) -> None:
        self._tokenizer = tokenizer
        self._decoders = [tokenizer.stream_decoder() for _ in range(choices)]
        self._offsets = [0] * choices

    def __call__(
        self, index: int, ids: Sequence[int], logprobs: Sequence[TokenLogprob | None]
    ) -> dict[str, Any]:
        """The value of a choice's `logprobs`."""
        tokens = [self._named(token_id) for token_id in ids]
        pairs = zip(ids, tokens, strict=True)
        return {
            "tokens": tokens,
            "token_logprobs": [entry and entry.logprob for entry in logprobs],
            "top_logprobs": [entry and self._top(entry) for entry in logprobs],
            "text_offset": [self._offset(index, token_id, named) for token_id, named in pairs],
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """The most probable tokens and the one that is there."""
        pairs = (*entry.alternatives, (entry.id, entry.logprob))
        return {self._named(token_id): logprob for token_id, logprob in pairs}

    def _named(self, token_id: int) -> str:
        """A token's text, or its bytes where that is not text: two never have the same."""
        spelled = self._tokenizer.bytes_of(token_id)
        try:
            return spelled.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)

    def _offset(self, index: int, token_id: int, named: str) -> int:
        """Characters before a token, what stands for bytes that it does not continue included."""
        before = self._offsets[index]
        text = self._decoders[index].push(token_id)
        self._offsets[index] += len(text)
        return before + len(text.removesuffix(named)) if text.endswith(named) else before


def _entry(spelled: bytes, logprob: float) -> dict[str, Any]:
    token = spelled.decode("utf-8", errors="replace")
    return {"token": token, "logprob": logprob, "bytes": list(spelled)}


def _space_before(spelled: bytes) -> int:
    """Bytes of the white space that a text begins with, as `str.lstrip` knows it."""
    text = spelled.decode("utf-8", errors="replace")
    return len(text[: len(text) - len(text.lstrip())].encode("utf-8"))
