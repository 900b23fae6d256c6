"""Answers in a given form: JSON of a schema, a regular expression, a grammar. Loads no torch.

The parsing is done by llguidance, an optional package (`tallyformer[grammar]`). Of the two kept
libraries it is the one that needs no torch; xgrammar does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tallyformer.errors import InvalidRequestError, UsageError
from tallyformer.inference.hooks import TokenMask
from tallyformer.quoting import quoted
from tallyformer.tokenizer.tokenizer import Tokenizer

MakeMask = Callable[[], TokenMask]
_COMPACT = {"whitespace_flexible": False}
"""Where white space may stand between the tokens of JSON, a small model writes nothing else."""


class Grammars:
    """Makes masks for `SamplingParams.token_mask`.

    An answer ends with the end-of-text where its form is complete. It may be cut off by
    `max_tokens`, of course.

    Args:
        tokenizer: the model's; what is known of it is kept, so make this once a model.

    Raises:
        UsageError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        try:
            import llguidance
        except ImportError:
            raise UsageError(
                "grammar: needs the package llguidance. Install it: pip install "
                "'tallyformer[grammar]'"
            ) from None
        self._library: Any = llguidance
        self._tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Described(tokenizer)))

    def json_schema(self, schema: Any) -> MakeMask:
        """JSON that fits a schema (a mapping, or its text); `{}` or True is any JSON.

        It has no white space between its tokens, unless the schema says otherwise in llguidance's
        words, as {"x-guidance": {"whitespace_flexible": true}}.

        Raises:
            InvalidRequestError: the schema cannot be used.
        """
        text = schema if isinstance(schema, str) else _written(schema)
        grammar_from = self._library.LLMatcher.grammar_from_json_schema
        return self._masks("json_schema", partial(grammar_from, defaults=_COMPACT), text)

    def regex(self, pattern: str) -> MakeMask:
        """Text that a regular expression matches as a whole. Errors: as for `json_schema`."""
        return self._masks("regex", self._library.LLMatcher.grammar_from_regex, pattern)

    def lark(self, grammar: str) -> MakeMask:
        """Text of a context-free grammar in Lark's notation. Errors: as for `json_schema`."""
        return self._masks("lark", self._library.LLMatcher.grammar_from_lark, grammar)

    def gbnf(self, grammar: str) -> MakeMask:
        """Text of a grammar as llama.cpp writes it, or in Lark's notation.

        Errors: as for `json_schema`.
        """
        from llguidance import gbnf_to_lark

        try:
            lark = gbnf_to_lark.any_to_lark(grammar)
        except Exception as error:  # it raises several kinds, the plain one among them
            reason = " ".join(str(error).split())[:200]
            raise InvalidRequestError(f"gbnf: cannot be used ({reason}). Correct it") from None
        return self.lark(lark)

    def _masks(self, name: str, grammar_from: Callable[[str], str], text: str) -> MakeMask:
        if not isinstance(text, str):
            raise InvalidRequestError(f"{name}: must be a text; it is {quoted(text)}")
        try:
            matcher = self._library.LLMatcher(self._tokens, grammar_from(text), log_level=0)
            problem = matcher.get_error() if matcher.is_error() else ""
        except ValueError as error:
            problem = str(error)
        if problem:
            reason = " ".join(problem.split())[:200]
            raise InvalidRequestError(f"{name}: cannot be used ({reason}). Correct it")
        return lambda: _Mask(matcher.deep_copy())


def _written(schema: Any) -> str:
    """A schema as JSON text."""
    try:
        return json.dumps(dict(schema) if isinstance(schema, Mapping) else schema)
    except (TypeError, ValueError, RecursionError):  # no JSON, a circle, or too deep
        raise InvalidRequestError(
            "json_schema: must be a JSON schema, as names and values or as text; it is "
            f"{quoted(schema)}"
        ) from None


class _Mask:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher
        self._taken = 0

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        new, self._taken = list(ids[self._taken :]), len(ids)
        if new and not self._matcher.is_stopped():
            self._matcher.consume_tokens(new)
        if self._matcher.is_error():
            raise InvalidRequestError(f"grammar: {self._matcher.get_error()}. Use a simpler one")
        return np.frombuffer(self._matcher.compute_bitmask(), np.uint32)


class _Described:
    """A tokenizer in llguidance's words: bytes of each id, those of control ids marked by 255."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = tokenizer.eot_id
        self.special_token_ids = sorted(tokenizer.control_ids)
        self.tokens = [
            b"\xff<%d>" % i if i in tokenizer.control_ids else tokenizer.bytes_of(i)
            for i in range(tokenizer.vocab_size)
        ]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)
