"""Which of torch's runners computes a model: `GraphRunner` where it pays, else `TorchRunner`."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import LlamaForCausalLM

from tallyformer.errors import UsageError
from tallyformer.inference.engine.graph_runner import GraphRunner
from tallyformer.inference.engine.static_steps import static_columns
from tallyformer.inference.engine.torch_runner import SLOTS, TorchRunner
from tallyformer.model.config_fields import UnsupportedModelError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.shape import ModelShape, shape_of

GPU_SLOTS = 256
"""Sequences that are kept at once on a GPU, where its memory allows."""

LONGEST_CONTEXT = 4096
"""A slot takes memory for a whole context, and a step reads all rows as far as the longest one,
which does not pay in long ones."""

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
    found = static_shape(model)
    if isinstance(found, str):
        problem = found
    else:
        try:
            runner = GraphRunner(
                model,
                found,
                vocab_size,
                slots=_slots(found, model.dtype, vocab_size, device),
                batch_invariant=batch_invariant,
            )
        except Exception as error:
            problem = " ".join(str(error).split())[:200] or type(error).__name__
        else:
            problem = runner.problem or ""
            if not problem or batch_invariant:
                return runner
    source = model.config.name_or_path or type(model).__name__
    if batch_invariant:
        raise UsageError(
            f"batch_invariant: {source} cannot be computed so: {problem}. Leave it out"
        )
    _log.warning("%s: decodes without CUDA graphs, slower: %s", source, problem)
    return TorchRunner(model, vocab_size)


def static_shape(model: Any) -> ModelShape | str:
    """The shape of a model that can be computed in slots of fixed length, or why it cannot."""
    if not isinstance(model, (TallyFormerForCausalLM, LlamaForCausalLM)):
        return f"{type(model).__name__} is neither a TallyFormer nor a Llama"
    try:
        shape = shape_of(model.config.to_dict())
    except UnsupportedModelError as error:
        return str(error)
    if shape.context > LONGEST_CONTEXT:
        return f"its context is longer than {LONGEST_CONTEXT}"
    weights = model.state_dict()
    for name, size in shape.tensors().items():
        if name not in weights or tuple(weights[name].shape) != size:
            return f"its {name} is not as its configuration says"
        if weights[name].dtype != model.dtype:
            return f"its {name} has another number format than the rest"
    return shape


def _slots(shape: ModelShape, dtype: torch.dtype, vocab_size: int, device: torch.device) -> int:
    """As many as 1/4 of a GPU's free memory holds, at most `GPU_SLOTS`."""
    if device.type != "cuda":
        return SLOTS
    columns = static_columns(shape.context)
    numbers = 2 * shape.layers * shape.kv_heads * shape.head_dim * columns + vocab_size
    room, _ = torch.cuda.mem_get_info(device)
    slots = GPU_SLOTS
    while slots > 1 and slots * numbers * dtype.itemsize > room // _SHARE:
        slots //= 2
    return slots
