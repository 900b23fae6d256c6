"""A frozen teacher: any causal language model of transformers.

Shapes: B batch, T positions, N labelled positions, C positions of a chunk, D the teacher's hidden
size, U shared ids.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tallyformer.errors import TrainingError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.compiling import compile_blocks
from tallyformer.training.inputs import Inputs, document_mask, document_positions
from tallyformer.training.precision import Precision

_PROBE_TOKENS = 16
_PROBE_TOLERANCE = 0.05
"""Relative difference that bf16's rounding may cause; a leak between documents is larger."""


@dataclass(frozen=True)
class _FromHidden:
    """Logits made of hidden states (N, D) and a head (U, D) when they are asked for."""

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None

    def logits(self, chunk: slice) -> torch.Tensor:
        return nn.functional.linear(self.hidden[chunk], self.weight, self.bias)


@dataclass(frozen=True)
class _FromLogits:
    """Logits (N, U) that are there already."""

    whole: torch.Tensor

    def logits(self, chunk: slice) -> torch.Tensor:
        return self.whole[chunk]


class Teacher:
    """Gives the teacher's logits for the ids that both models know.

    Where the model is a body and a linear head, its logits are made chunk by chunk; otherwise (a
    head with scaling, for example) they are those of its own forward pass.

    Args:
        model: frozen and put into evaluation mode here.
        shared: U, the first ids that teacher and student have in common.
        name: for errors.
    """

    def __init__(self, model: Any, shared: int, name: str):
        self.model = model.eval().requires_grad_(False)
        self.shared = shared
        self.name = name
        body = model.base_model
        self._plain_head = body is not model and _head_explains_logits(model, body, self._probe())
        self._module = body if self._plain_head else model
        takes = inspect.signature(self._module.forward).parameters
        self._takes_positions = "position_ids" in takes
        self.isolates = self._keeps_documents_apart()

    @torch.no_grad()
    def targets(
        self, inputs: Inputs, precision: Precision, temperature: float
    ) -> _FromHidden | _FromLogits:
        """Run the teacher on a micro-batch, with the same documents kept apart as for the student.

        The temperature is the loss's business; the logits do not depend on it.
        """
        with precision.autocast():
            output = self._forward(inputs.ids, inputs.mask, inputs.positions)
        out_NX = output.flatten(0, 1)
        if inputs.rows is not None:
            out_NX = out_NX[inputs.rows]
        if not self._plain_head:
            return _FromLogits(out_NX[:, : self.shared])
        head = self.model.get_output_embeddings()
        bias_U = None if head.bias is None else head.bias[: self.shared].to(precision.dtype)
        weight_UD = head.weight[: self.shared].to(precision.dtype)
        return _FromHidden(out_NX.to(precision.dtype), weight_UD, bias_U)

    def compile(self) -> None:
        """Compile the blocks of a teacher of our own class; other classes stay as they are."""
        if isinstance(self.model, TallyFormerForCausalLM):
            compile_blocks(self.model)

    def _forward(
        self, ids_BT: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None
    ) -> torch.Tensor:
        """The last hidden states (B, T, D), or the logits where the head is not plain."""
        given: dict[str, Any] = {"use_cache": False}
        if mask is not None:
            given["attention_mask"] = self._in_its_form(mask)
            if self._takes_positions:
                given["position_ids"] = positions
        output = self._module(ids_BT, **given)
        result: torch.Tensor = output.last_hidden_state if self._plain_head else output.logits
        return result

    def _in_its_form(self, mask_B1TT: torch.Tensor) -> torch.Tensor:
        """SDPA takes a bool mask; other implementations add theirs to the scores."""
        if self.model.config._attn_implementation == "sdpa":
            return mask_B1TT
        dtype = self.model.dtype
        lowest = torch.finfo(dtype).min
        return torch.zeros_like(mask_B1TT, dtype=dtype).masked_fill_(~mask_B1TT, lowest)

    @torch.no_grad()
    def _keeps_documents_apart(self) -> bool:
        """Compare a document behind another one with the same document alone."""
        ids_1T, half = self._probe(), _PROBE_TOKENS // 2
        segments_1T = torch.arange(_PROBE_TOKENS, device=ids_1T.device)[None] // half
        mask, positions = document_mask(segments_1T), document_positions(segments_1T)
        try:
            packed = self._forward(ids_1T, mask, positions)
        except (RuntimeError, TypeError, ValueError):  # a class that takes no such mask
            return False
        alone = self._forward(ids_1T[:, half:], None, None)
        difference = (packed[:, half:] - alone).float().norm()
        return bool(difference <= _PROBE_TOLERANCE * alone.float().norm())

    def _probe(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.shared, (1, _PROBE_TOKENS), generator=generator)
        return ids.to(self.model.device)

    def require_isolation(self) -> None:
        """Check that the teacher keeps packed documents apart.

        Raises:
            TrainingError: its attention ignores the mask.
        """
        if not self.isolates:
            raise TrainingError(
                f"teacher {self.name}: {type(self.model).__name__} ignores the mask between packed "
                "documents. Set attend_across_documents: true in every distill phase, or use "
                "another teacher"
            )


@torch.no_grad()
def _head_explains_logits(model: Any, body: Any, ids_BT: torch.Tensor) -> bool:
    """True if the logits are a linear function of the last hidden states, and nothing else."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    expected = model(ids_BT, use_cache=False).logits.float()
    found = head(body(ids_BT, use_cache=False).last_hidden_state).float()
    return bool((found - expected).norm() <= 1e-3 * expected.norm())
