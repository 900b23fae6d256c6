"""Prompts and settings in all forms that callers use, or an error that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallyformer.errors import InvalidRequestError
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.quoting import quoted
from tallyformer.token_ids import as_id
from tallyformer.tokenizer.tokenizer import Tokenizer

Prompt = str | Sequence[int]


def prompts_of(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or several as a list of them."""
    if isinstance(prompts, str):
        return [prompts]
    items: list[Any] = _listed(prompts)
    if items and as_id(items[0]) is not None:
        return [items]
    return items


def one_for_each(
    params: SamplingParams | Sequence[SamplingParams], count: int
) -> list[SamplingParams]:
    """Settings for each of `count` prompts."""
    if isinstance(params, SamplingParams):
        return [params] * count
    if not isinstance(params, Sequence):
        raise InvalidRequestError(f"params: must be SamplingParams; it is {quoted(params)}")
    if len(params) != count:
        raise InvalidRequestError(
            f"params: {len(params)} for {count} prompts. Give one for all, or one for each"
        )
    return list(params)


def check_params(params: Any, vocab_size: int) -> None:
    """Refuse what is not SamplingParams, and an id there that has no text."""
    if not isinstance(params, SamplingParams):
        raise InvalidRequestError(f"params: must be SamplingParams; it is {quoted(params)}")
    for name in ("stop_token_ids", "bad_token_ids", "logit_bias"):
        for token_id in getattr(params, name):
            if token_id >= vocab_size:
                raise InvalidRequestError(
                    f"{name}: id {token_id} is not in the vocabulary, whose ids go from 0 to "
                    f"{vocab_size - 1}. Leave it out"
                )


def check_one_sample(params: SamplingParams) -> None:
    """Refuse more than one sample where one answer is given back."""
    if params.n != 1:
        raise InvalidRequestError(
            f"n: must be 1 in a conversation, which has one next answer; it is {params.n}. For "
            "more, use stream_chat, or generate with the ids of chat_prompt"
        )


def prompt_ids(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """The ids of a prompt, each one that has a text; a text has no control tokens."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else _as_ids(prompt)
    if not ids or (min(ids) >= 0 and max(ids) < tokenizer.vocab_size):
        return ids
    for place, token_id in enumerate(ids):
        if not 0 <= token_id < tokenizer.vocab_size:
            raise InvalidRequestError(
                f"prompt: id {quoted(token_id)} at place {place} is not in the vocabulary, "
                f"whose ids go from 0 to {tokenizer.vocab_size - 1}. Encode the prompt with this "
                "model's tokenizer"
            )
    return ids


def _as_ids(prompt: Any) -> list[int]:
    if type(prompt) is list and {*map(type, prompt)} == {int}:
        return prompt.copy()
    ids = [as_id(value) for value in _listed(prompt)]
    if None in ids:
        raise _not_a_prompt(prompt)
    return [token_id for token_id in ids if token_id is not None]


def _listed(items: Any) -> list[Any]:
    # Bytes hold numbers and a mapping holds keys, but neither was meant so.
    if isinstance(items, bytes | bytearray | Mapping):
        raise _not_a_prompt(items)
    try:
        return list(items)
    except TypeError:
        raise _not_a_prompt(items) from None


def _not_a_prompt(value: Any) -> InvalidRequestError:
    return InvalidRequestError(f"prompt: must be a text or a list of ids; it is {quoted(value)}")
