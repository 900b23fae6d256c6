"""The head and its loss, a few hundred tokens at a time.

At a vocabulary of 50k the logits of one batch outweigh the rest of the model, and the usual loss
holds them several times over. Here the logits of one chunk are turned into their own gradient in
place and multiplied into the two gradients that are wanted, so only one chunk ever exists.
Cost: the same three matrix products as the usual way. Idea: Wijmans et al. 2024, "Cut Your Losses",
https://arxiv.org/abs/2411.09009, section 4.

Shapes: N labelled positions, C positions of one chunk, D hidden size, V vocabulary, K sums,
R rows trained alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

_CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**27}
"""Logits in one chunk: 64 MB of a CPU's memory in bf16, and 256 MB of a GPU's, whose products are
so fast that adding up the head's gradient after each chunk would cost as much."""
_BLOCK_ELEMENTS = {"cpu": 2**19}
"""Logits that the loss works on at a time on a CPU, so that its float32 intermediates stay in the
cache: several passes over 2 MB are three times faster than over 130 MB."""
_VOCABULARY_BLOCK = 4096
"""Rows of the head whose gradient is added at once, so that the product stays in the cache."""


class ChunkLoss(Protocol):
    """A loss of logits that are there for one chunk only."""

    def __call__(
        self, logits_CV: torch.Tensor, chunk: slice, scale: float, *, gradient: bool
    ) -> torch.Tensor:
        """Return the K sums of the chunk, in float32; the first is what is minimised.

        With `gradient`, `logits_CV` holds afterwards `scale` times the derivative of the first
        sum. `chunk` says which of the N positions these are.
        """


@dataclass(frozen=True)
class Head:
    """The output matrix; logits are `h @ weight.T`.

    Attributes:
        weight: (V, D).
        rows: (R, D) that stand in for R rows of the weight and are trained alone (PEFT's trainable
            tokens), or None.
        row_ids: (R,) which rows those are, on the same device.
    """

    weight: torch.Tensor
    rows: torch.Tensor | None = None
    row_ids: torch.Tensor | None = None

    def narrow(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix (V, D) that is multiplied with, detached."""
        narrow_VD = self.weight.detach().to(dtype)
        if self.rows is None or self.row_ids is None:
            return narrow_VD
        return narrow_VD.index_copy(0, self.row_ids, self.rows.detach().to(dtype))


def chunk_length(positions: int, logits: int, device: torch.device) -> int:
    """Positions a chunk, as equal as can be.

    Args:
        positions: to be cut into chunks.
        logits: numbers that one position needs at a time.
        device: decides how many there may be in all.
    """
    most = max(64, _CHUNK_ELEMENTS.get(device.type, 2**25) // logits)
    return _equal(positions, most)


def _equal(positions: int, most: int) -> int:
    """The length of parts that are as equal as can be, none longer than `most`."""
    parts = max(1, -(-positions // most))
    return max(1, -(-positions // parts))


def chunked_loss(
    h_ND: torch.Tensor,
    head: Head,
    loss: ChunkLoss,
    *,
    scale: float,
    dtype: torch.dtype,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum a loss over positions without ever holding all their logits.

    What surprises: gradients are computed here, not in `backward`, and in `dtype`; `scale` must
    therefore hold every factor (1 / tokens, fp16's loss scale) that keeps them in its range.

    Args:
        h_ND: hidden states after the final norm.
        head: the output matrix.
        loss: what is summed.
        scale: factor on the differentiable result.
        dtype: of the matrix products and the logits.
        chunk: positions a chunk; by default `chunk_length`.

    Returns:
        `scale` times the first sum, differentiable once in `h_ND` and the head; and all K sums,
        detached and without `scale`.
    """
    length = chunk or chunk_length(h_ND.shape[0], head.weight.shape[0], h_ND.device)
    weight, rows = head.weight, head.rows
    if not torch.is_grad_enabled():
        # The function below would be told all the same that its inputs want gradients.
        h_ND, weight, rows = h_ND.detach(), weight.detach(), None
    objective, sums_K = _ChunkedHead.apply(  # type: ignore[no-untyped-call]
        h_ND, weight, rows, head, loss, scale, dtype, length
    )
    return objective, sums_K


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes no keywords
        ctx: Any,
        h_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        rows_RD: torch.Tensor | None,
        head: Head,
        loss: ChunkLoss,
        scale: float,
        dtype: torch.dtype,
        length: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wants_h, wants_weight, wants_rows = ctx.needs_input_grad[:3]
        narrow_ND, narrow_VD = h_ND.detach().to(dtype), head.narrow(dtype)
        grad_h_ND = torch.empty_like(narrow_ND) if wants_h else None
        grad_VD = torch.empty_like(weight_VD, dtype=torch.float32) if wants_weight else None
        grad_RD = None
        if rows_RD is not None and wants_rows:
            grad_RD = torch.zeros_like(rows_RD, dtype=torch.float32)
        buffer_CV = narrow_ND.new_empty(length, weight_VD.shape[0])
        sums = []
        for start in range(0, h_ND.shape[0], length):
            chunk = slice(start, min(start + length, h_ND.shape[0]))
            h_CD = narrow_ND[chunk]
            logits_CV = torch.mm(h_CD, narrow_VD.T, out=buffer_CV[: h_CD.shape[0]])
            for block in _blocks(chunk, logits_CV):
                logits_EV = logits_CV[block.start - start : block.stop - start]
                sums.append(loss(logits_EV, block, scale, gradient=any(ctx.needs_input_grad)))
            if grad_h_ND is not None:
                torch.mm(logits_CV, narrow_VD, out=grad_h_ND[chunk])
            if grad_VD is not None:
                _add_outer(grad_VD, logits_CV, h_CD, first=start == 0)
            if grad_RD is not None:
                grad_RD += logits_CV[:, head.row_ids].T @ h_CD
        sums_K = torch.stack(sums).sum(dim=0)
        ctx.save_for_backward(grad_h_ND, grad_VD, grad_RD)
        ctx.dtypes = (h_ND.dtype, weight_VD.dtype, weight_VD.dtype)
        ctx.mark_non_differentiable(sums_K)
        return sums_K[0] * scale, sums_K

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = grads[0]
        # The loop always calls backward on the result itself: a pass over V * D numbers saved.
        unit = factor.device.type == "cpu" and factor.item() == 1.0
        scaled = [
            None if grad is None else (grad if unit else grad * factor).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *scaled, None, None, None, None, None


def _blocks(chunk: slice, logits_CV: torch.Tensor) -> Iterator[slice]:
    """Parts of a chunk that the loss is called with."""
    positions, vocabulary = logits_CV.shape
    most = _BLOCK_ELEMENTS.get(logits_CV.device.type)
    length = positions if most is None else _equal(positions, max(16, most // vocabulary))
    for start in range(chunk.start, chunk.stop, length):
        yield slice(start, min(start + length, chunk.stop))


def _add_outer(
    grad_VD: torch.Tensor, gradient_CV: torch.Tensor, h_CD: torch.Tensor, *, first: bool
) -> None:
    """`grad_VD += gradient_CV.T @ h_CD` in float32; the `first` time what was there is replaced."""
    whole = grad_VD.is_cuda or gradient_CV.dtype == torch.float32
    step = grad_VD.shape[0] if whole else _VOCABULARY_BLOCK
    for start in range(0, grad_VD.shape[0], step):
        block = slice(start, start + step)
        product = gradient_CV[:, block].T @ h_CD
        if first:
            grad_VD[block].copy_(product)
        else:
            grad_VD[block].add_(product)


def set_entries(gradient_CV: torch.Tensor, ids_CK: torch.Tensor, values_CK: torch.Tensor) -> None:
    """Set K entries of each row, which must differ; `scatter_` is 100 times slower in bf16."""
    rows_C1 = torch.arange(ids_CK.shape[0], device=ids_CK.device).unsqueeze(1)
    gradient_CV[rows_C1, ids_CK] = values_CK.to(gradient_CV.dtype)
