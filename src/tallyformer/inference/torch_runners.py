"""Which of torch's runners computes a model: `GraphRunner` where it pays, else `TorchRunner`."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import LlamaForCausalLM

from tallyformer.errors import UsageError
from tallyformer.inference.engine.graph_runner import GraphRunner, static_columns
from tallyformer.inference.engine.torch_runner import SLOTS, TorchRunner, sees_all
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

GPU_SLOTS = 256
"""Sequences that are kept at once on a GPU, where its memory allows."""

LONGEST_CONTEXT = 4096
"""Every step reads every slot to its end, which does not pay in long ones."""

_SHARE = 4
"""1/4 of the GPU's free memory may be taken for slots."""

_log = logging.getLogger(__name__)


def torch_runner(model: Any, vocab_size: int, *, batch_invariant: bool = False) -> TorchRunner:
    """The fastest runner that computes a transformers model.

    Args:
        model: in eval mode, on its device.
        vocab_size: ids that have a text.
        batch_invariant: see `LLM.from_pretrained`.

    Raises:
        UsageError: `batch_invariant`, and the model cannot be computed so.
    """
    device = next(model.parameters()).device
    if device.type != "cuda" and not batch_invariant:
        return TorchRunner(model, vocab_size)
    problem = static_problem(model)
    if problem is None:
        try:
            runner = GraphRunner(
                model,
                vocab_size,
                context=model.config.max_position_embeddings,
                slots=_slots(model, vocab_size, device),
                batch_invariant=batch_invariant,
            )
        except Exception as error:
            problem = " ".join(str(error).split())[:200] or type(error).__name__
        else:
            problem = runner.problem
            if problem is None or batch_invariant:
                return runner
    source = model.config.name_or_path or type(model).__name__
    if batch_invariant:
        raise UsageError(
            f"batch_invariant: {source} cannot be computed so: {problem}. Leave it out"
        )
    _log.warning("%s: decodes without CUDA graphs, slower: %s", source, problem)
    return TorchRunner(model, vocab_size)


def static_problem(model: Any) -> str | None:
    """Why a model cannot be computed in slots of fixed length; None where it can."""
    if not isinstance(model, (TallyFormerForCausalLM, LlamaForCausalLM)):
        return f"{type(model).__name__} is neither a TallyFormer nor a Llama"
    if not sees_all(model.config):
        return "its layers do not see the whole context"
    if model.config.max_position_embeddings > LONGEST_CONTEXT:
        return f"its context is longer than {LONGEST_CONTEXT}"
    return None


def _slots(model: Any, vocab_size: int, device: torch.device) -> int:
    """As many as 1/4 of a GPU's free memory holds, at most `GPU_SLOTS`."""
    if device.type != "cuda":
        return SLOTS
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    columns = static_columns(config.max_position_embeddings)
    numbers = 2 * config.num_hidden_layers * heads * head * columns + vocab_size
    room, _ = torch.cuda.mem_get_info(device)
    slots = GPU_SLOTS
    while slots > 1 and slots * numbers * model.dtype.itemsize > room // _SHARE:
        slots //= 2
    return slots
