"""What a caller may pass to a model, under every supported version of transformers.

Up to transformers 5.23 the key-value cache is `past_key_values`, from 5.24 on it is `cache`. The
classes here take both names whatever the version, and use the installed version's when they call
transformers.
"""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import TransformersKwargs

CACHE_NAMES = ("past_key_values", "cache")
CACHE_NAME = next(
    field.name for field in fields(BaseModelOutputWithPast) if field.name in CACHE_NAMES
)
"""The cache's name in the installed transformers."""

PASSED_ON = frozenset(TransformersKwargs.__annotations__) | {
    # Packed and paged attention. The versions differ in which of these they declare.
    "block_table",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "is_causal",
    "logits_indices",
    "logits_processor_args",
    "max_length_k",
    "max_length_q",
    "max_seqlen_k",
    "max_seqlen_q",
    "read_index",
    "seq_idx",
    "write_index",
    # Positions, outputs and the loss.
    "cache_position",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_cache",
    # `generate` reads it, for its stop strings, and hands it on.
    "tokenizer",
}
"""Keyword arguments that transformers' Trainer, generation and attention pass through a model."""

_ONLY_NONE = frozenset({"token_type_ids"})
"""PEFT passes these to every model, as None where they have no meaning."""


def one_cache(module: Any, past_key_values: Any, cache: Any, kwargs: dict[str, Any]) -> Any:
    """Return the cache that came under either name.

    What surprises: up to transformers 5.23 continuous batching passes its pages as `cache`, and
    only the attention implementation can extend them. They stay in `kwargs`, for that one.

    Raises:
        TypeError: two different caches are given.
    """
    if cache is not None and CACHE_NAME != "cache" and not _is_cache(cache):
        kwargs["cache"] = cache
        return past_key_values
    if past_key_values is None or past_key_values is cache:
        return cache
    if cache is not None:
        raise TypeError(
            f"{type(module).__name__}.forward: past_key_values and cache are two names of one "
            "argument. Give one of them."
        )
    return past_key_values


def check_names(module: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse keyword arguments that nobody would read.

    What the configured attention implementation names in its signature is passed to it.

    Args:
        module: the module whose `forward` was called; it has a `config`.
        kwargs: those that are not parameters of `forward`.

    Raises:
        TypeError: a name is not part of transformers' protocol either.
    """
    unknown = [name for name in kwargs if name not in PASSED_ON]
    if unknown:
        _refuse(module, [n for n in unknown if n not in _ONLY_NONE or kwargs[n] is not None])


def _refuse(module: Any, unknown: list[str]) -> None:
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, None)
    own = inspect.signature(type(module).forward).parameters
    read = inspect.signature(attend).parameters if attend is not None else ()
    for name in unknown:
        if name not in read:
            near = difflib.get_close_matches(name, [*own, *PASSED_ON], n=1)
            hint = f"Did you mean {near[0]}?" if near else "Leave it out."
            raise TypeError(f"{type(module).__name__}.forward: unknown argument {name!r}. {hint}")


def _is_cache(cache: Any) -> bool:
    return isinstance(cache, Cache) or hasattr(cache, "get_mask_sizes")
