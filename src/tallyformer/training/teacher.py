"""A frozen teacher: any causal language model of transformers.

Shapes: B batch, T positions, N labelled positions, C positions of a chunk, D the teacher's hidden
size, U shared ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tallyformer.errors import TrainingError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.compiling import compile_blocks, uncompile_blocks
from tallyformer.training.document_attention import DocumentAttention
from tallyformer.training.micro_batch import MicroBatch
from tallyformer.training.packed_call import PackedCall, probe_row
from tallyformer.training.precision import Precision


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
        self._documents = DocumentAttention(self.model)
        body = model.base_model
        self._plain_head = body is not model and _head_explains_logits(
            model, body, probe_row(shared).to(model.device)
        )
        self._call = PackedCall(body if self._plain_head else model, shared)
        self.isolates = self._call.isolates

    @torch.no_grad()
    def targets(
        self, inputs: MicroBatch, precision: Precision, temperature: float
    ) -> _FromHidden | _FromLogits:
        """Run the teacher on a micro-batch, with the same documents kept apart as for the student.

        The temperature is the loss's business; the logits do not depend on it.
        """
        with precision.autocast():
            output = self._output(inputs, precision)
        out_NX = output.flatten(0, 1)
        if inputs.rows is not None:
            out_NX = out_NX[inputs.rows]
        if not self._plain_head:
            return _FromLogits(out_NX[:, : self.shared])
        head = self.model.get_output_embeddings()
        bias_U = None if head.bias is None else head.bias[: self.shared].to(precision.dtype)
        weight_UD = head.weight[: self.shared].to(precision.dtype)
        return _FromHidden(out_NX.to(precision.dtype), weight_UD, bias_U)

    def _output(self, inputs: MicroBatch, precision: Precision) -> torch.Tensor:
        """Last hidden states (B, T, D); logits (B, T, V) if the head does more than multiply."""
        where = self._documents.arguments(inputs, precision) if self._plain_head else None
        if where is None:
            return self._call(inputs.ids, inputs.mask, inputs.positions)
        hidden: torch.Tensor = self.model.base_model(inputs.ids, use_cache=False, **where)[0]
        return hidden

    def compile(self, compiled: bool) -> None:
        """Compile the blocks of a teacher of our own class; other classes stay as they are.

        Args:
            compiled: False undoes an earlier call: a teacher may teach several runs, and must do
                in each what it would do if the run were resumed alone.
        """
        if isinstance(self.model, TallyFormerForCausalLM):
            (compile_blocks if compiled else uncompile_blocks)(self.model)

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
