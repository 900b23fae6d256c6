"""Attention within packed documents by where each begins, in place of a mask of T x T numbers.

A GPU's kernel for sequences of any lengths skips what a mask would hide (Dao 2023,
FlashAttention-2, https://arxiv.org/abs/2307.08691). torch has it for GPUs of NVIDIA from Ampere on,
in bf16 and fp16 and without dropout; everywhere else the mask stays.

Shapes: B batch, T positions, H heads, E head size, N = B * T, L documents.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.training.micro_batch import MicroBatch, document_mask, document_starts
from tallyformer.training.precision import Precision

NAME = "tallyformer_documents"
_TOLERANCE = 0.02
"""Relative difference that bf16's rounding may cause; a leak between documents is larger."""
_log = logging.getLogger(__name__)


class DocumentAttention:
    """How a model is called on micro-batches: by where documents begin, or with a mask.

    Args:
        model: a causal language model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._works: bool | None = None

    def arguments(self, inputs: MicroBatch, precision: Precision) -> dict[str, Any] | None:
        """The places of the documents as the model takes them; None where the mask is needed.

        Whether it works is found out at the first call.
        """
        if inputs.starts is None:
            return None
        if self._works is None:
            self._works = use_document_attention(self._model, precision)
        return documents_of(inputs.starts, inputs.ids.shape[1]) if self._works else None


def use_document_attention(model: Any, precision: Precision) -> bool:
    """Let a model of ours attend by `documents_of` from now on, where that works.

    It is tried once on random numbers; without these arguments the model computes as before.
    """
    config = model.config
    if not (_may_work(model, precision) and _works(config, precision)):
        return False
    ALL_ATTENTION_FUNCTIONS.register(NAME, document_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    config._attn_implementation = NAME
    return True


def documents_of(starts_L: torch.Tensor, context: int) -> dict[str, Any]:
    """What the model is called with, under the names that transformers has for it.

    Args:
        starts_L: (L + 1,) int32, where each document begins in the batch's N positions, and N.
        context: T, the longest that one can be.
    """
    torch._dynamo.maybe_mark_dynamic(starts_L, 0)
    return {
        "cu_seq_lens_q": starts_L,
        "cu_seq_lens_k": starts_L,
        "max_length_q": context,
        "max_length_k": context,
    }


def document_attention(
    module: torch.nn.Module,
    q_BHTE: torch.Tensor,
    k_BHTE: torch.Tensor,
    v_BHTE: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Mix values (B, T, H, E) within documents; without their places, as torch's own attention."""
    if cu_seq_lens_q is None:
        usual = ALL_ATTENTION_FUNCTIONS["sdpa"]
        kwargs |= {"scaling": scaling, "dropout": dropout}
        mixed, _ = usual(module, q_BHTE, k_BHTE, v_BHTE, attention_mask, **kwargs)
        return mixed, None
    q_NHE, k_NHE, v_NHE = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BHTE, v_BHTE))
    mixed_NHE = attend_within(q_NHE, k_NHE, v_NHE, cu_seq_lens_q, max_length_q or 0, scale=scaling)
    return mixed_NHE.view(q_BHTE.shape[0], -1, *mixed_NHE.shape[1:]), None


def attend_within(
    q_NHE: torch.Tensor,
    k_NHE: torch.Tensor,
    v_NHE: torch.Tensor,
    starts_L: torch.Tensor,
    longest: int,
    *,
    scale: float | None,
) -> torch.Tensor:
    """Causal attention (N, H, E) within documents, by torch's kernel."""
    from torch.nn.attention.varlen import varlen_attn

    causal: dict[str, Any] = {"window_size": (-1, 0)} if _takes_window() else {"is_causal": True}
    mixed_NHE = varlen_attn(
        q_NHE, k_NHE, v_NHE, starts_L, starts_L, longest, longest, scale=scale, **causal
    )
    assert isinstance(mixed_NHE, torch.Tensor)
    return mixed_NHE


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _takes_window() -> bool:
    """How to ask for causal attention, which differs between versions of torch."""
    from torch.nn.attention.varlen import varlen_attn

    return "window_size" in inspect.signature(varlen_attn).parameters


def _may_work(model: Any, precision: Precision) -> bool:
    config = model.config
    return (
        config.model_type == TallyFormerConfig.model_type
        and precision.device.type == "cuda"
        and precision.name != "fp32"
        and config._attn_implementation in ("sdpa", NAME)
        and config.dropout == 0
        and torch.cuda.get_device_capability(precision.device) >= (8, 0)
    )


def _works(config: Any, precision: Precision) -> bool:
    """Whether the kernel gives what the mask gives, forward and backward, at this model's sizes."""
    try:
        with torch.inference_mode(False), torch.enable_grad():  # the first call may be a validation
            difference = _difference(config, precision)
    except Exception as error:  # a kernel that is missing or refuses says so in many ways
        _log.info("attention by documents does not work here, so masks are used: %s", error)
        return False
    if difference > _TOLERANCE:
        _log.info("attention by documents differs by %.3f here, so masks are used", difference)
    return difference <= _TOLERANCE


def _difference(config: Any, precision: Precision) -> float:
    """The largest relative difference between kernel and mask, of the result and its gradients."""
    device, length = precision.device, 64
    generator = torch.Generator(device).manual_seed(0)
    shape = (3, 2, config.num_attention_heads, length, config.head_dim)
    qkv = torch.randn(shape, generator=generator, device=device).to(precision.dtype)
    segments_BT = (torch.arange(length) // 24).expand(2, -1).to(torch.int32)
    pull = torch.randn(shape[1:], generator=generator, device=device).to(precision.dtype)
    places = {"cu_seq_lens_q": document_starts(segments_BT).to(device), "max_length_q": length}
    by_place = _result_and_gradient(qkv, pull, None, **places)
    by_mask = _result_and_gradient(qkv, pull, document_mask(segments_BT.to(device)))
    pairs = zip(by_place, by_mask, strict=True)
    return max(float((a - b).float().norm() / b.float().norm()) for a, b in pairs)


def _result_and_gradient(
    qkv: torch.Tensor, pull_BHTE: torch.Tensor, mask: torch.Tensor | None, **places: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    qkv = qkv.clone().requires_grad_()
    q_BHTE, k_BHTE, v_BHTE = qkv
    scale = q_BHTE.shape[-1] ** -0.5
    mixed_BTHE, _ = document_attention(
        torch.nn.Identity(), q_BHTE, k_BHTE, v_BHTE, mask, scaling=scale, **places
    )
    (gradient,) = torch.autograd.grad(mixed_BTHE, qkv, pull_BHTE.transpose(1, 2))
    return mixed_BTHE.detach(), gradient
