"""A written model is loaded by the engine that it is for, and compared with its source.

Shapes: T positions, N new tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from tallyformer.corpus.primer import articles
from tallyformer.errors import ArtifactError
from tallyformer.tokenizer import Tokenizer

_ARTICLES = 3
_WINDOW = 64
_NEW_TOKENS = 8


class OtherEngine(Protocol):
    """A model in another engine."""

    name: str
    """The engine's package and version, "onnxruntime 1.31.1"."""

    def logits(self, ids_T: np.ndarray) -> np.ndarray:
        """Logits (T, V) of one row, computed at once."""

    def greedy(self, ids_T: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest continuation (N,), one token at a time, and each step's logits (N, V)."""


@dataclass(frozen=True)
class EngineVerification:
    """What an engine found; differences are the largest of any logit.

    Attributes:
        engine: which.
        stored_difference: to the source with its weights rounded as they are stored, computed
            in float32.
        cached_difference: the same, of tokens that the engine generated one by one with its cache.
        rounding_difference: to the source itself.
        largest_logit: of the source, in absolute value.
        positions: how many were compared.
    """

    engine: str
    stored_difference: float
    cached_difference: float
    rounding_difference: float
    largest_logit: float
    positions: int


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that are accepted, as shares of the largest logit.

    Attributes:
        stored: of `stored_difference` and `cached_difference`: what the engine computes otherwise.
        rounding: of `rounding_difference`: what the stored numbers cost.
    """

    stored: float
    rounding: float


def check_engine(
    engine: OtherEngine,
    model: Any,
    tokenizer: Tokenizer,
    rounded: Callable[[np.ndarray], np.ndarray],
    *,
    tolerance: Tolerance,
) -> EngineVerification:
    """Compare an engine's logits with the source's, with and without a cache.

    Args:
        engine: with the written model.
        model: the source, in float32.
        tokenizer: the model's.
        rounded: a matrix as it is stored.
        tolerance: how far logits may differ.

    Raises:
        ArtifactError: they differ by more.
    """
    stored = _with_matrices(model, rounded)
    worst = {"stored": 0.0, "cached": 0.0, "rounding": 0.0}
    largest, positions = 0.0, 0
    for ids_T in windows(tokenizer, model.config):
        own_TV = _logits(model, ids_T)
        largest = max(largest, float(np.abs(own_TV).max()))
        found_TV = engine.logits(ids_T)
        prompt_T = ids_T[: max(1, len(ids_T) // 2)]
        new_N, new_NV = engine.greedy(prompt_T, min(_NEW_TOKENS, len(ids_T) - len(prompt_T)))
        whole_T = np.concatenate([prompt_T, new_N[:-1]])
        of_new_NV = _logits(stored, whole_T)[len(prompt_T) - 1 :]
        for name, first, second in (
            ("stored", found_TV, _logits(stored, ids_T)),
            ("rounding", found_TV, own_TV),
            ("cached", new_NV, of_new_NV),
        ):
            worst[name] = max(worst[name], _difference(first, second))
        positions += len(ids_T) + len(new_N)
    found = EngineVerification(
        engine=engine.name,
        stored_difference=worst["stored"],
        cached_difference=worst["cached"],
        rounding_difference=worst["rounding"],
        largest_logit=largest,
        positions=positions,
    )
    _refuse(found, tolerance)
    return found


def windows(tokenizer: Tokenizer, config: Any) -> Iterator[np.ndarray]:
    """Ids (T,) of a few finance texts, then of random tokens from the whole vocabulary."""
    length = min(_WINDOW, config.max_position_embeddings)
    for article in islice(articles(), _ARTICLES):
        yield np.array(tokenizer.encode(article)[:length], np.int64)
    yield np.random.default_rng(0).integers(0, config.vocab_size, length)


@torch.inference_mode()
def _logits(model: Any, ids_T: np.ndarray) -> np.ndarray:
    found: np.ndarray = model(torch.from_numpy(ids_T)[None], use_cache=False).logits[0].numpy()
    return found


@torch.no_grad()
def _with_matrices(model: Any, rounded: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The model with each matrix as it is stored; a tied head is one parameter."""
    stored = copy.deepcopy(model).eval()
    for parameter in stored.parameters():
        if parameter.ndim == 2:
            parameter.copy_(torch.from_numpy(rounded(parameter.numpy())))
    return stored


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Largest absolute difference; infinite if the shapes differ or a value is not a number."""
    if first.shape != second.shape:
        return float("inf")
    difference = float(np.abs(first - second).max(initial=0.0))
    return difference if difference == difference else float("inf")


def _refuse(found: EngineVerification, tolerance: Tolerance) -> None:
    scale = max(1.0, found.largest_logit)
    for what, difference, share in (
        ("differ", found.stored_difference, tolerance.stored),
        ("with its cache differ", found.cached_difference, tolerance.stored),
        ("differ", found.rounding_difference, tolerance.rounding),
    ):
        if not difference <= share * scale:
            raise ArtifactError(
                f"the logits of {found.engine} {what} from the model's by {difference:.2g}, more "
                f"than {share * scale:.2g}; what was written is not kept. Use a finer --dtype, or "
                "another version of the engine's package"
            )
