"""A decoder in as few operators as torch has for it, on memory that never moves.

On a GPU each operator is a kernel, and at the size of these models a step costs what its kernels
cost to start. So query, key and value are one product, which also gives each query and key with its
pairs exchanged, as rotary positions need (a turned head is `x cos + x' sin`, and exchanged rows of
the weights give x'); a norm is one operator; keys and values are written together; and nothing here
waits for the device or reads a number from it. A block costs 13 operators, or 15 with a gate.

It computes what the transformers model computes, up to the order of sums.

Shapes: B rows, T new ids of each, N = B T, S columns that are read, P positions, D hidden size,
H heads, G heads of keys and values, E head size, R = E / 2, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from tallyformer.model.shape import Affine, BlockNames, ModelShape

EXCHANGED_HIDDEN = 1024
"""The greatest D at which the product also gives x': 2 D^2 more weights a block to read and to
multiply with, for two operators less. At 1,024 that takes a GPU about as long, beyond it longer."""

_Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


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
        weights: by the shape's names, on one device. Query, key and value are copied, now and at
            each `clear`; the others are used as they are at any time.
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
        self._exchanges = shape.hidden <= EXCHANGED_HIDDEN
        self._attend = _attention(dtype, device, shape.head_dim)
        self._sources = [_sources(weights, shape.block(layer)) for layer in range(shape.layers)]
        self._blocks = [self._block(weights, layer) for layer in range(shape.layers)]
        self._turns_PE = _turns(shape, columns).to(device, dtype)
        kept = (shape.layers, slots, columns, 2 * shape.kv_heads, shape.head_dim)
        self.kept = torch.zeros(kept, dtype=dtype, device=device)
        self._columns_S = torch.arange(columns, device=device)
        self._zero = torch.zeros((), dtype=dtype, device=device)
        self._least = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=device)

    def final(self, window: Window) -> Tensor:
        """Keep new ids; their hidden states before the final norm (N, D)."""
        x_ND = functional.embedding(window.ids.reshape(-1), self._embedding_VD)
        turns_NE = functional.embedding(window.positions.reshape(-1), self._turns_PE)
        cos_N1E, sin_N1E = turns_NE[:, None].chunk(2, dim=-1)
        seen = _Seen(window, cos_N1E, sin_N1E, self._mask(window))
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

    def wipe(self, slot: int) -> None:
        """Forget a slot, in place: zeros, whatever was there."""
        self.kept[:, slot] = 0

    def clear(self) -> None:
        """Forget all slots, and copy query, key and value again, in case the model has changed."""
        self.kept.zero_()
        for block, sources in zip(self._blocks, self._sources, strict=True):
            copies = (copy for copy in block.heads if copy is not None)
            for copy, rows in zip(copies, self._rows(sources), strict=True):
                torch.cat(rows, out=copy)

    def _computed(self, block: _Block, kept: Tensor, x_ND: Tensor, seen: _Seen) -> Tensor:
        def attend(y_ND: Tensor) -> Tensor:
            heads_NHE = block.heads(y_ND).view(len(y_ND), -1, self._shape.head_dim)
            return block.proj(self._mixed(heads_NHE, kept, seen))

        x_ND = self._add(x_ND, attend, block.attn_norm)
        return self._add(x_ND, lambda y_ND: _mlp(block, y_ND), block.mlp_norm)

    def _block(self, weights: Mapping[str, Tensor], layer: int) -> _Block:
        names = self._shape.block(layer)
        copies = [torch.cat(rows) for rows in self._rows(self._sources[layer])]
        return _Block(
            attn_norm=_part(weights, names.attn_norm),
            heads=_Part(copies[0], copies[1] if len(copies) > 1 else None),
            proj=_part(weights, names.proj),
            mlp_norm=_part(weights, names.mlp_norm),
            fc1=_part(weights, names.fc1),
            gate=None if names.gate is None else _part(weights, names.gate),
            fc2=_part(weights, names.fc2),
        )

    def _rows(self, sources: Sequence[_Part]) -> Iterator[list[Tensor]]:
        """What one product for query, key and value consists of: of the weight, then of the bias
        where there is one."""
        for query, key, value in zip(*sources, strict=True):
            if query is None or key is None or value is None:
                continue
            rows = [query, key, value]
            if self._exchanges:
                both = torch.cat([query, key])
                heads = both.reshape(-1, self._shape.head_dim, *both.shape[1:])
                rows.append(self._exchanged(heads, 1).flatten(0, 1))
            yield rows

    def _exchanged(self, heads: Tensor, dim: int) -> Tensor:
        """With the channels of each pair exchanged, the first of them negated.

        Args:
            heads: of any shape.
            dim: the one of the channels.
        """
        half = self._shape.head_dim // 2
        halves = self._shape.rope_layout == "half"
        pairs, where = ((2, half), dim) if halves else ((half, 2), dim + 1)
        split = heads.reshape(*heads.shape[:dim], *pairs, *heads.shape[dim + 1 :])
        first, second = split.unbind(where)
        return torch.stack([-second, first], dim=where).flatten(dim, dim + 1)

    def _mask(self, window: Window) -> Tensor:
        """0 for what an id may see, the least number for the rest: (B, 1, T, S)."""
        later_BTS = self._columns_S[: window.width] > window.positions[:, :, None]
        mask_B1TS = torch.where(later_BTS, self._least, self._zero)[:, None]
        together = self._shape.heads // self._shape.kv_heads
        several = together > 1 and window.ids.shape[1] > 1
        return mask_B1TS.repeat(1, 1, together, 1) if several else mask_B1TS

    def _mixed(self, heads_NHE: Tensor, kept: Tensor, seen: _Seen) -> Tensor:
        """Turn queries and keys, keep keys and values, attend: (N, H E)."""
        shape, window = self._shape, seen.window
        wide, narrow = shape.heads, shape.kv_heads
        turned_NHE = heads_NHE[:, : wide + narrow]
        if self._exchanges:
            exchanged_NHE = heads_NHE[:, wide + 2 * narrow :]
        else:
            exchanged_NHE = self._exchanged(turned_NHE, 2)
        turned_NHE.mul_(seen.cos).addcmul_(exchanged_NHE, seen.sin)
        rows, length = window.ids.shape
        heads_BTHE = heads_NHE.view(rows, length, -1, shape.head_dim)
        new_BTGE = heads_BTHE[:, :, wide : wide + 2 * narrow]
        kept.index_put_((window.numbers, window.columns), new_BTGE)
        keys_BSGE, values_BSGE = kept[window.slots, : window.width].chunk(2, dim=2)
        # Heads that share keys are as many queries of one head.
        query_BTGHE = heads_BTHE[:, :, :wide].view(rows, length, narrow, -1, shape.head_dim)
        query_BGTE = query_BTGHE.permute(0, 2, 3, 1, 4).reshape(rows, narrow, -1, shape.head_dim)
        keys_BGSE, values_BGSE = keys_BSGE.transpose(1, 2), values_BSGE.transpose(1, 2)
        mixed_BGTE = self._attend(query_BGTE, keys_BGSE, values_BGSE, seen.mask)
        mixed_BGHTE = mixed_BGTE.reshape(rows, narrow, -1, length, shape.head_dim)
        return mixed_BGHTE.permute(0, 3, 1, 2, 4).reshape(rows * length, -1)

    def _add(self, x_ND: Tensor, half: Callable[[Tensor], Tensor], norm: _Part) -> Tensor:
        if self._shape.norm_placement == "pre":
            return x_ND + half(self._norm(x_ND, norm))
        return self._norm(x_ND + half(x_ND), norm)

    def _norm(self, x_ND: Tensor, norm: _Part) -> Tensor:
        size, eps = norm.weight.shape, self._shape.norm_eps
        if self._shape.norm == "rms":
            return functional.rms_norm(x_ND, size, norm.weight, eps)
        return functional.layer_norm(x_ND, size, norm.weight, norm.bias, eps)


def _attention(dtype: torch.dtype, device: torch.device, head_dim: int) -> _Attend:
    """The operator for queries, keys, values (B, G, ., E) and a mask (B, 1, ., S) that is added."""
    fits = dtype != torch.float64 and head_dim % 8 == 0
    if device.type == "cuda" and fits:
        return _efficient_attention
    return functional.scaled_dot_product_attention


def _efficient_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """`scaled_dot_product_attention` by the kernel that takes a mask and any lengths, and plans
    nothing at first use, as cuDNN's does for each shape and thread.

    It is called by its name: to leave torch fewer to choose from changes settings of the process.
    """
    mask_BGTS = mask.expand(-1, *query.shape[1:3], -1)
    operator = torch.ops.aten._scaled_dot_product_efficient_attention
    return cast(Tensor, operator(query, keys, values, mask_BGTS, False)[0])


def _mlp(block: _Block, x_ND: Tensor) -> Tensor:
    if block.gate is None:
        return block.fc2(functional.gelu(block.fc1(x_ND)))
    return block.fc2(functional.silu(block.gate(x_ND)) * block.fc1(x_ND))


def _part(weights: Mapping[str, Tensor], names: Affine) -> _Part:
    return _Part(weights[names.weight], None if names.bias is None else weights[names.bias])


def _sources(weights: Mapping[str, Tensor], names: BlockNames) -> tuple[_Part, _Part, _Part]:
    """Query, key and value."""
    return _part(weights, names.query), _part(weights, names.key), _part(weights, names.value)


def _turns(shape: ModelShape, positions: int) -> Tensor:
    """Cosines, then sines, of each channel of a head at each position, float32 (P, 2 E)."""
    angle_PR = torch.arange(positions)[:, None].float() * torch.tensor(shape.inv_freq)
    turns = [angle.mul(shape.attention_scaling) for angle in (angle_PR.cos(), angle_PR.sin())]
    if shape.rope_layout == "half":
        return torch.cat([turns[0], turns[0], turns[1], turns[1]], dim=1)
    return torch.cat([turn.repeat_interleave(2, dim=1) for turn in turns], dim=1)
