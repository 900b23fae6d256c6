"""A decoder in as few operators as torch has for it, on memory that never moves.

On a GPU each operator is a kernel, and at the size of these models a step costs what its kernels
cost to start. So query, key and value are one product, which also gives the two rotary positions
turn into (a turned head is `x cos + x' sin`, where x' is x with its pairs exchanged, and a product
with exchanged rows of the weights gives x'); a norm is one operator; keys and values are written
together; and nothing here waits for the device or reads a number from it. A block costs 13
operators, or 15 with a gate.

It computes what the transformers model computes, up to the order of sums.

Shapes: B rows, T new ids of each, N = B T, S columns that are read, P positions, D hidden size,
H heads, G heads of keys and values, E head size, R = E / 2, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from tallyformer.model.shape import Affine, ModelShape

FUSED = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Attention on a GPU. It takes a mask and any lengths, and plans nothing at first use, as cuDNN's
does for each shape and thread; the second is for what it cannot compute (float64)."""


class _Part(NamedTuple):
    """A linear layer, or a norm."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x_ND: Tensor) -> Tensor:
        return functional.linear(x_ND, self.weight, self.bias)


class _Block(NamedTuple):
    attn_norm: _Part
    heads: _Part
    proj: _Part
    mlp_norm: _Part
    fc1: _Part
    gate: _Part | None
    fc2: _Part


@dataclass(frozen=True)
class Window:
    """What is computed together.

    Attributes:
        ids, positions: of the new ids (B, T); padding has position 0.
        columns: where they are kept (B, T); for padding the last column of all.
        numbers: of the rows' slots (B, 1).
        slots: the same (B,); a slice where they follow one another from 0 on.
        width: S, above every position.
    """

    ids: Tensor
    positions: Tensor
    columns: Tensor
    numbers: Tensor
    slots: slice | Tensor
    width: int


class _Seen(NamedTuple):
    """A window, turns of its positions (N, 1, E), and what its ids see (B, 1, T, S)."""

    window: Window
    cos: Tensor
    sin: Tensor
    mask: Tensor


class StaticDecoder:
    """Embedding, blocks, final norm and head, with keys and values of all slots.

    Args:
        shape: of the model.
        weights: by the shape's names, on one device; query, key and value are copied.
        vocab_size: ids that have a text; a model may have more rows.
        slots: sequences that are kept.
        columns: ids that are kept of each, a multiple of 8; the last one is for padding.
    """

    def __init__(
        self,
        shape: ModelShape,
        weights: Mapping[str, Tensor],
        vocab_size: int,
        *,
        slots: int,
        columns: int,
    ) -> None:
        self._shape = shape
        self._embedding_VD = weights[shape.embedding]
        dtype, device = self._embedding_VD.dtype, self._embedding_VD.device
        self._head_VD = weights[shape.head][:vocab_size]
        self._final_norm = _part(weights, shape.final_norm)
        self._blocks = [self._block(weights, layer) for layer in range(shape.layers)]
        self._turns_PE = _turns(shape, columns).to(device, dtype)
        kept = (shape.layers, slots, columns, 2 * shape.kv_heads, shape.head_dim)
        self.kept = torch.zeros(kept, dtype=dtype, device=device)
        self._columns_S = torch.arange(columns, device=device)
        self._seen = torch.zeros((), dtype=dtype, device=device)
        self._hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=device)

    def final(self, window: Window) -> Tensor:
        """Keep new ids; their hidden states before the final norm (N, D)."""
        x_ND = functional.embedding(window.ids.reshape(-1), self._embedding_VD)
        turns_NE = functional.embedding(window.positions.reshape(-1), self._turns_PE)
        cos_N1E, sin_N1E = turns_NE[:, None].chunk(2, dim=-1)
        seen = _Seen(window, cos_N1E, sin_N1E, self._mask(window))
        with self._attention():
            for block, kept in zip(self._blocks, self.kept.unbind(), strict=True):
                x_ND = self._computed(block, kept, x_ND, seen)
        return x_ND

    def logits(self, x_ND: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits (N, V) of hidden states; `out` may be wider memory's first V columns."""
        return torch.mm(self._norm(x_ND, self._final_norm), self._head_VD.T, out=out)

    def copy(self, slot: int, to: int, length: int) -> None:
        """Copy the first `length` columns of a slot over those of another."""
        self.kept[:, to, :length] = self.kept[:, slot, :length]

    def swap(self, slot: int, other: int) -> None:
        """Exchange what two slots hold."""
        held = self.kept[:, slot].clone()
        self.kept[:, slot] = self.kept[:, other]
        self.kept[:, other] = held

    def wipe(self, slots: int | slice = slice(None)) -> None:
        """Forget these slots, all by default, in place: zeros, whatever was there."""
        self.kept[:, slots] = 0

    def _computed(self, block: _Block, kept: Tensor, x_ND: Tensor, seen: _Seen) -> Tensor:
        def attend(y_ND: Tensor) -> Tensor:
            heads_NHE = block.heads(y_ND).view(len(y_ND), -1, self._shape.head_dim)
            return block.proj(self._mixed(heads_NHE, kept, seen))

        x_ND = self._add(x_ND, attend, block.attn_norm)
        return self._add(x_ND, lambda y_ND: _mlp(block, y_ND), block.mlp_norm)

    def _block(self, weights: Mapping[str, Tensor], layer: int) -> _Block:
        names = self._shape.block(layer)
        query, key, value = (_part(weights, n) for n in (names.query, names.key, names.value))
        fused = [
            torch.cat([query_of, key_of, value_of, self._exchanged(query_of, key_of)])
            for query_of, key_of, value_of in zip(query, key, value, strict=True)
            if query_of is not None and key_of is not None and value_of is not None
        ]
        return _Block(
            attn_norm=_part(weights, names.attn_norm),
            heads=_Part(fused[0], fused[1] if len(fused) > 1 else None),
            proj=_part(weights, names.proj),
            mlp_norm=_part(weights, names.mlp_norm),
            fc1=_part(weights, names.fc1),
            gate=None if names.gate is None else _part(weights, names.gate),
            fc2=_part(weights, names.fc2),
        )

    def _exchanged(self, *rows: Tensor) -> Tensor:
        """Rows of heads with those of each pair exchanged, the first of them negated."""
        both = torch.cat(rows)
        half = self._shape.head_dim // 2
        pairs, where = ((2, half), 1) if self._shape.rope_layout == "half" else ((half, 2), 2)
        split = both.reshape(-1, *pairs, *both.shape[1:])
        first, second = split.unbind(where)
        return torch.stack([-second, first], dim=where).reshape(both.shape)

    def _mask(self, window: Window) -> Tensor:
        """0 for what an id may see, the least number for the rest: (B, 1, T, S)."""
        later_BTS = self._columns_S[: window.width] > window.positions[:, :, None]
        mask_B1TS = torch.where(later_BTS, self._hidden, self._seen)[:, None]
        together = self._shape.heads // self._shape.kv_heads
        several = together > 1 and window.ids.shape[1] > 1
        return mask_B1TS.repeat(1, 1, together, 1) if several else mask_B1TS

    def _mixed(self, heads_NHE: Tensor, kept: Tensor, seen: _Seen) -> Tensor:
        """Turn queries and keys, keep keys and values, attend: (N, H E)."""
        shape, window = self._shape, seen.window
        wide, narrow = shape.heads, shape.kv_heads
        turned_NHE = heads_NHE[:, : wide + narrow]
        turned_NHE.mul_(seen.cos).addcmul_(heads_NHE[:, wide + 2 * narrow :], seen.sin)
        rows, length = window.ids.shape
        heads_BTHE = heads_NHE.view(rows, length, -1, shape.head_dim)
        new_BTGE = heads_BTHE[:, :, wide : wide + 2 * narrow]
        kept.index_put_((window.numbers, window.columns), new_BTGE)
        keys_BSGE, values_BSGE = kept[window.slots, : window.width].chunk(2, dim=2)
        # Heads that share keys are as many queries of one head.
        query_BTGHE = heads_BTHE[:, :, :wide].view(rows, length, narrow, -1, shape.head_dim)
        query_BGTE = query_BTGHE.permute(0, 2, 3, 1, 4).reshape(rows, narrow, -1, shape.head_dim)
        mixed_BGTE = functional.scaled_dot_product_attention(
            query_BGTE,
            keys_BSGE.transpose(1, 2),
            values_BSGE.transpose(1, 2),
            attn_mask=seen.mask,
        )
        mixed_BGHTE = mixed_BGTE.reshape(rows, narrow, -1, length, shape.head_dim)
        return mixed_BGHTE.permute(0, 3, 1, 2, 4).reshape(rows * length, -1)

    def _attention(self) -> AbstractContextManager[None]:
        return sdpa_kernel(FUSED) if self.kept.device.type == "cuda" else nullcontext()

    def _add(self, x_ND: Tensor, half: Callable[[Tensor], Tensor], norm: _Part) -> Tensor:
        if self._shape.norm_placement == "pre":
            return x_ND + half(self._norm(x_ND, norm))
        return self._norm(x_ND + half(x_ND), norm)

    def _norm(self, x_ND: Tensor, norm: _Part) -> Tensor:
        size, eps = norm.weight.shape, self._shape.norm_eps
        if self._shape.norm == "rms":
            return functional.rms_norm(x_ND, size, norm.weight, eps)
        return functional.layer_norm(x_ND, size, norm.weight, norm.bias, eps)


def _mlp(block: _Block, x_ND: Tensor) -> Tensor:
    if block.gate is None:
        return block.fc2(functional.gelu(block.fc1(x_ND)))
    return block.fc2(functional.silu(block.gate(x_ND)) * block.fc1(x_ND))


def _part(weights: Mapping[str, Tensor], names: Affine) -> _Part:
    return _Part(weights[names.weight], None if names.bias is None else weights[names.bias])


def _turns(shape: ModelShape, positions: int) -> Tensor:
    """Cosines, then sines, of each channel of a head at each position, float32 (P, 2 E)."""
    angle_PR = torch.arange(positions)[:, None].float() * torch.tensor(shape.inv_freq)
    turns = [angle.mul(shape.attention_scaling) for angle in (angle_PR.cos(), angle_PR.sin())]
    if shape.rope_layout == "half":
        return torch.cat([turns[0], turns[0], turns[1], turns[1]], dim=1)
    return torch.cat([turn.repeat_interleave(2, dim=1) for turn in turns], dim=1)
