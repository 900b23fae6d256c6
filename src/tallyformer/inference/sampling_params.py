"""How the next token is chosen and when generation ends. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tallyformer.errors import InvalidRequestError
from tallyformer.quoting import quoted
from tallyformer.token_ids import as_id

MODES = ("combined", "independent")
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Settings of one request.

    Every filter keeps the most probable tokens; what all of them keep is sampled from, and every
    other token has probability exactly 0.

    Attributes:
        max_tokens: at most this many tokens are generated, 1 or more.
        temperature: 0 is greedy (the most probable token); above 0 the logits are divided by it.
        top_k: keep this many of the most probable tokens; 0 keeps all.
        top_p: keep the smallest set of most probable tokens whose mass reaches `top_p` in (0, 1];
            the token that crosses it is kept. 1 keeps all. Holtzman et al. 2020, section 3.1.
        min_p: keep tokens whose probability is at least `min_p` times the greatest one's,
            in [0, 1]; 0 keeps all. Nguyen et al. 2024.
        mode: "combined" measures the mass of `top_p` within the `top_k` tokens, "independent" on
            the whole distribution. Without `top_k` they are the same.
        frequency_penalty: subtracted from a token's logit once for each time it has been generated
            in this answer, in [-2, 2]. Tokens of the prompt do not count.
        presence_penalty: subtracted once if the token has been generated at all, in [-2, 2].
        stop: strings that end the answer; they and what follows are not part of its text. They
            may span tokens.
        stop_token_ids: ids that end the answer, besides the model's end-of-text.
        seed: makes the answer reproducible, whatever else is in the batch; 0 or more. None draws
            a fresh seed.
        ignore_eos: continue after the model's end-of-text, to `max_tokens`.

    Raises:
        InvalidRequestError: a field has the wrong type or is out of range; field, value and
            range are named.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    mode: Literal["combined", "independent"] = "combined"
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    seed: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        self._store_int("max_tokens", 1)
        self._store_int("top_k", 0)
        if self.seed is not None:
            self._store_int("seed", 0, _MAX_SEED)
        self._store_number("temperature", 0, math.inf)
        self._store_number("top_p", 0, 1, above_low=True)
        self._store_number("min_p", 0, 1)
        self._store_number("frequency_penalty", -2, 2)
        self._store_number("presence_penalty", -2, 2)
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise _invalid("mode", self.mode, f"one of {', '.join(MODES)}")
        if not isinstance(self.ignore_eos, bool):
            raise _invalid("ignore_eos", self.ignore_eos, "true or false")
        self._store("stop", _stop_strings(self.stop))
        self._store("stop_token_ids", _ids(self.stop_token_ids))

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop`, always as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def _store(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _store_int(self, field: str, low: int, high: int | None = None) -> None:
        value = getattr(self, field)
        limits = f"a whole number of at least {low}"
        if high is not None:
            limits = f"a whole number from {low} to {high}"
        number = as_id(value)
        if number is None or number < low or (high is not None and number > high):
            raise _invalid(field, value, limits)
        self._store(field, number)

    def _store_number(
        self, field: str, low: float, high: float, *, above_low: bool = False
    ) -> None:
        value = getattr(self, field)
        number = _real(value)
        too_low = number is not None and (number <= low if above_low else number < low)
        if number is None or not math.isfinite(number) or too_low or number > high:
            first = f"a number above {low}" if above_low else f"a number of at least {low}"
            raise _invalid(field, value, first + ("" if high == math.inf else f", at most {high}"))
        self._store(field, number)


def _real(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _stop_strings(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value
    expected = "a text, or a list of texts, none of them empty"
    if strings is None or not isinstance(strings, Sequence | set | frozenset):
        raise _invalid("stop", value, expected)
    if not all(isinstance(s, str) and s for s in strings):
        raise _invalid("stop", value, expected)
    return tuple(strings)


def _ids(value: Any) -> tuple[int, ...]:
    expected = "a list of token ids of at least 0"
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise _invalid("stop_token_ids", value, expected)
    try:
        ids = [as_id(v) for v in value]
    except TypeError:  # an array without a dimension
        ids = [None]
    if any(i is None or i < 0 for i in ids):
        raise _invalid("stop_token_ids", value, expected)
    return tuple(i for i in ids if i is not None)


def _invalid(field: str, value: Any, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: must be {expected}; it is {quoted(value)}")
