"""How the next token is chosen and when generation ends. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tallyformer.errors import InvalidRequestError
from tallyformer.quoting import quoted
from tallyformer.token_ids import as_id

if TYPE_CHECKING:
    from tallyformer.inference.hooks import ForcedIds, LogitsProcessor, TokenMask

MODES = ("combined", "independent")
_MAX_SEED = 2**63 - 1
_MOST_LOGPROBS = 100
_MOST_SAMPLES = 128
_MOST_GUESSED = 16
_MOST_KEPT = 2**31 - 1
_REPETITION = (0.01, 100)
"""Logits stay finite."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Settings of one request.

    Every filter keeps the most probable tokens; what all of them keep is sampled from, and every
    other token has probability exactly 0.

    Attributes:
        max_tokens: at most this many tokens are generated, 1 or more; 0 with `prompt_logprobs`,
            where nothing but those is wanted.
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
        repetition_penalty: logits above 0 are divided by it, those below multiplied, once for
            every token of the prompt and of the answer; 0.01 to 100, 1 changes nothing. Keskar
            et al. 2019, section 4.1; as in transformers.
        logit_bias: id -> number from -100 to 100 that is added to its logit. At -100 a token is
            practically never drawn; to be sure, name it in `bad_token_ids`.
        bad_token_ids: ids that are never drawn.
        min_tokens: no end-of-text and none of the `stop_token_ids` is drawn before this many
            tokens; stop strings still end the answer.
        logprobs: None, or how many alternatives are given beside the log-probability of each
            token, 0 to 100. They are the model's own: before penalties, bias, temperature and
            filters.
        prompt_logprobs: None, or the same for the prompt's tokens.
        n: samples of the prompt, 1 to 128; the first is what `n=1` gives.
        stop: strings that end the answer; they and what follows are not part of its text. They
            may span tokens.
        stop_token_ids: ids that end the answer, besides the model's end-of-text.
        seed: makes the answer reproducible, whatever else is in the batch; 0 or more. None draws
            a fresh seed.
        ignore_eos: continue after the model's end-of-text, to `max_tokens`.
        look_up: at most this many tokens are guessed in each step from what follows where the
            text had the newest tokens before, 0 to 16, and all checked at once. The answer stays
            the same; where texts repeat themselves it comes sooner. Not done beside a hook.
            Saxena 2023, "Prompt lookup decoding".
        token_mask: makes, for each sample, what says which tokens may follow; see `hooks`.
        forced_ids: makes, for each sample, what says which tokens must follow; see `hooks`.
        logits_processor: makes, for each sample, what changes the logits; see `hooks`.

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
    repetition_penalty: float = 1.0
    # Compared, but without a hash: a mapping has none.
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    bad_token_ids: Sequence[int] = ()
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    n: int = 1
    look_up: int = 0
    token_mask: Callable[[], TokenMask] | None = None
    forced_ids: Callable[[], ForcedIds] | None = None
    logits_processor: Callable[[], LogitsProcessor] | None = None

    def __post_init__(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                self._store_int(name, 0, _MOST_LOGPROBS)
        self._store_int("max_tokens", 1 if self.prompt_logprobs is None else 0)
        self._store_int("min_tokens", 0)
        if self.min_tokens > self.max_tokens:
            expected = f"a whole number from 0 to max_tokens, {quoted(self.max_tokens)}"
            raise _invalid("min_tokens", self.min_tokens, expected)
        self._store_int("n", 1, _MOST_SAMPLES)
        self._store_int("look_up", 0, _MOST_GUESSED)
        self._store_int("top_k", 0, _MOST_KEPT)
        if self.seed is not None:
            self._store_int("seed", 0, _MAX_SEED)
        self._store_number("temperature", 0, math.inf)
        self._store_number("top_p", 0, 1, above_low=True)
        self._store_number("min_p", 0, 1)
        self._store_number("frequency_penalty", -2, 2)
        self._store_number("presence_penalty", -2, 2)
        self._store_number("repetition_penalty", *_REPETITION)
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise _invalid("mode", self.mode, f"one of {', '.join(MODES)}")
        if not isinstance(self.ignore_eos, bool):
            raise _invalid("ignore_eos", self.ignore_eos, "true or false")
        self._store("stop", _stop_strings(self.stop))
        self._store("stop_token_ids", _ids("stop_token_ids", self.stop_token_ids))
        self._store("bad_token_ids", _ids("bad_token_ids", self.bad_token_ids))
        self._store("logit_bias", _bias(self.logit_bias))
        for name in ("token_mask", "forced_ids", "logits_processor"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise _invalid(name, value, "None or a function without arguments")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether ids that were generated are drawn more or less often afterwards."""
        penalised = self.frequency_penalty != 0 or self.presence_penalty != 0
        return penalised or self.repetition_penalty != 1

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop`, always as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def _store(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _store_int(self, field: str, low: int, high: int | None = None) -> None:
        value = getattr(self, field)
        number = as_id(value)
        if number is None or number < low or (high is not None and number > high):
            limits = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise _invalid(field, value, f"a whole number {limits}")
        self._store(field, number)

    def _store_number(
        self, field: str, low: float, high: float, *, above_low: bool = False
    ) -> None:
        value = getattr(self, field)
        number = value if type(value) is float else _real(value)
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


def _bias(value: Any) -> dict[int, float]:
    expected = "token ids of at least 0, each with a number from -100 to 100"
    if not isinstance(value, Mapping):
        raise _invalid("logit_bias", value, expected)
    bias: dict[int, float] = {}
    for key, given in value.items():
        token_id, number = as_id(key), _real(given)
        if token_id is None or token_id < 0 or number is None or not -100 <= number <= 100:
            raise _invalid("logit_bias", value, expected)
        bias[token_id] = number
    return bias


def _ids(name: str, value: Any) -> tuple[int, ...]:
    expected = "a list of token ids of at least 0"
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise _invalid(name, value, expected)
    try:
        ids = [as_id(v) for v in value]
    except TypeError:  # an array without a dimension
        ids = [None]
    if any(i is None or i < 0 for i in ids):
        raise _invalid(name, value, expected)
    return tuple(i for i in ids if i is not None)


def _invalid(field: str, value: Any, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: must be {expected}; it is {quoted(value)}")
