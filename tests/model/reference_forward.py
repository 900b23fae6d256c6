"""A decoder's forward pass as its `ModelShape` describes it, in NumPy and float64.

Shapes: T positions, V vocabulary, D hidden size, H heads, G heads of keys and values, E head size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tallyformer.model.shape import Affine, BlockNames, ModelShape

Array = NDArray[np.float64]
_erf = np.vectorize(math.erf)


def forward(shape: ModelShape, weights: Mapping[str, np.ndarray], ids: Sequence[int]) -> Array:
    """Logits (T, V)."""
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}
    x_TD = w[shape.embedding][list(ids)]
    for layer in range(shape.layers):
        names = shape.block(layer)
        x_TD = _add(shape, w, x_TD, names.attn_norm, lambda x, n=names: _attend(shape, w, n, x))
        x_TD = _add(shape, w, x_TD, names.mlp_norm, lambda x, n=names: _mlp(shape, w, n, x))
    return _norm(shape, w, shape.final_norm, x_TD) @ w[shape.head].T


def _add(shape, w, x_TD, norm, half):
    if shape.norm_placement == "pre":
        return x_TD + half(_norm(shape, w, norm, x_TD))
    return _norm(shape, w, norm, x_TD + half(x_TD))


def _norm(shape: ModelShape, w: Mapping[str, Array], names: Affine, x_TD: Array) -> Array:
    centred_TD = x_TD - x_TD.mean(-1, keepdims=True) if shape.norm == "layer" else x_TD
    root_T1 = np.sqrt((centred_TD**2).mean(-1, keepdims=True) + shape.norm_eps)
    return centred_TD / root_T1 * w[names.weight] + (w[names.bias] if names.bias else 0)


def _linear(w: Mapping[str, Array], names: Affine, x: Array) -> Array:
    return x @ w[names.weight].T + (w[names.bias] if names.bias else 0)


def _mlp(shape: ModelShape, w: Mapping[str, Array], names: BlockNames, x_TD: Array) -> Array:
    inner_TF = _linear(w, names.fc1, x_TD)
    if names.gate is None:
        inner_TF = inner_TF * (1 + _erf(inner_TF / math.sqrt(2))) / 2
    else:
        gate_TF = _linear(w, names.gate, x_TD)
        inner_TF = gate_TF / (1 + np.exp(-gate_TF)) * inner_TF
    return _linear(w, names.fc2, inner_TF)


def _attend(shape: ModelShape, w: Mapping[str, Array], names: BlockNames, x_TD: Array) -> Array:
    tokens, shared = len(x_TD), shape.heads // shape.kv_heads

    def heads(part: Affine, count: int) -> Array:
        return _linear(w, part, x_TD).reshape(tokens, count, shape.head_dim).swapaxes(0, 1)

    q_HTE = _rotate(shape, heads(names.query, shape.heads))
    k_HTE = _rotate(shape, heads(names.key, shape.kv_heads)).repeat(shared, 0)
    v_HTE = heads(names.value, shape.kv_heads).repeat(shared, 0)
    score_HTT = q_HTE @ k_HTE.swapaxes(1, 2) / math.sqrt(shape.head_dim)
    score_HTT[:, ~np.tri(tokens, dtype=bool)] = -np.inf
    weight_HTT = np.exp(score_HTT - score_HTT.max(-1, keepdims=True))
    mixed_HTE = weight_HTT / weight_HTT.sum(-1, keepdims=True) @ v_HTE
    return _linear(w, names.proj, mixed_HTE.swapaxes(0, 1).reshape(tokens, -1))


def _rotate(shape: ModelShape, x_HTE: Array) -> Array:
    angle_TR = np.arange(x_HTE.shape[1])[:, None] * np.array(shape.inv_freq)
    cos_TR, sin_TR = np.cos(angle_TR) * shape.attention_scaling, np.sin(angle_TR)
    sin_TR = sin_TR * shape.attention_scaling
    pairs = x_HTE.shape[-1] // 2
    if shape.rope_layout == "interleaved":
        first, second = x_HTE[..., 0::2], x_HTE[..., 1::2]
    else:
        first, second = x_HTE[..., :pairs], x_HTE[..., pairs:]
    return np.concatenate(
        (first * cos_TR - second * sin_TR, second * cos_TR + first * sin_TR), axis=-1
    )
