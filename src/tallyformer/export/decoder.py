"""What the writers of other engines' formats read: a model's shape and its weights.

Shapes: D hidden size, E head size, N rows of all heads of a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tallyformer.artifacts.json_files import read_json
from tallyformer.errors import ArtifactError
from tallyformer.model.config_fields import Fields, UnsupportedModelError
from tallyformer.model.rope_frequencies import rotary_settings
from tallyformer.model.shape import Affine, ModelShape, shape_of
from tallyformer.model.weights import FolderWeights, wide
from tallyformer.tokenizer import Tokenizer

Layer = tuple[np.ndarray, np.ndarray | None]
"""A matrix (outputs, inputs) and its bias (outputs,), or None where it has none."""


@dataclass(frozen=True)
class Decoder:
    """A TallyFormer or a stock Llama.

    Attributes:
        shape: which.
        tensor: gives a tensor of `shape.tensors()` in float32.
        rope_type: "default" for plain rotary positions, else the kind of their scaling.
        rope_theta: the base that was scaled.
    """

    shape: ModelShape
    tensor: Callable[[str], np.ndarray]
    rope_type: str
    rope_theta: float

    def layer(self, names: Affine) -> Layer:
        """A linear layer's matrix and bias, or a norm's scale and shift."""
        return self.tensor(names.weight), None if names.bias is None else self.tensor(names.bias)

    def rotated(self, names: Affine, *, layout: str) -> Layer:
        """The layer of queries or keys with the pairs of each head in the asked layout.

        Queries and keys are permuted alike, so their scores stay (see `model/rope.py`).

        Args:
            names: the layer's.
            layout: "half" or "interleaved".
        """
        matrix, bias = self.layer(names)
        if layout == self.shape.rope_layout:
            return matrix, bias
        order = in_halves if layout == "half" else in_pairs
        size = self.shape.head_dim
        return order(matrix, size), None if bias is None else order(bias, size)

    def qkv(self, layer: int) -> Layer:
        """Query, key and value of a block as one layer, the pairs in halves."""
        names = self.shape.block(layer)
        turned = (self.rotated(one, layout="half") for one in (names.query, names.key))
        return stacked([*turned, self.layer(names.value)])


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        folder: where it is.
        model: transformers' model, in float32.
        tokenizer: the model's.
        decoder: the model for writers.
    """

    folder: Path
    model: Any
    tokenizer: Tokenizer
    decoder: Decoder

    def spellings(self) -> list[str]:
        """A name for each row of the embedding, as the vocabulary spells it."""
        known = self.tokenizer.spellings()
        known += [None] * (self.decoder.shape.vocab - len(known))
        return [f"<|unused {i}|>" if name is None else name for i, name in enumerate(known)]


def read_decoder(folder: Path, *, fix: str) -> Decoder:
    """The model in a Hugging Face folder.

    Args:
        folder: which.
        fix: what helps where it cannot be read, as the last sentence of the error.

    Raises:
        ArtifactError: it is a model of another kind, or damaged.
    """
    config = read_json(folder / "config.json", fix=fix)
    try:
        shape = shape_of(config)
        rotary = rotary_settings(Fields(config), context=shape.context)
    except UnsupportedModelError as error:
        raise ArtifactError(
            f"{folder}: only a TallyFormer or a stock Llama is exported to other engines "
            f"({error}). Use --format safetensors"
        ) from None
    weights = FolderWeights(folder, config, shape, fix=fix)
    return Decoder(
        shape,
        lambda name: wide(weights(name)),
        rope_type=str(rotary.values["rope_type"]),
        rope_theta=rotary.positive("rope_theta"),
    )


def in_halves(rows_N: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows with interleaved pairs, the first of each pair before all second ones of its head."""
    pairs = rows_N.reshape(-1, head_dim // 2, 2, *rows_N.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows_N.shape)


def in_pairs(rows_N: np.ndarray, head_dim: int) -> np.ndarray:
    """The inverse of `in_halves`."""
    halves = rows_N.reshape(-1, 2, head_dim // 2, *rows_N.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows_N.shape)


def stacked(parts: Sequence[Layer]) -> Layer:
    """Layers with one input as one layer."""
    matrix = np.concatenate([matrix for matrix, _ in parts])
    if all(bias is None for _, bias in parts):
        return matrix, None
    biases = [np.zeros(len(m), np.float32) if bias is None else bias for m, bias in parts]
    return matrix, np.concatenate(biases)
