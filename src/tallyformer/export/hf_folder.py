"""The final Hugging Face folder: weights, configuration, code, tokenizer, model card.

A model of Llama's shape is written as a stock Llama, which needs no code of ours; any other as a
TallyFormer, with the files that `trust_remote_code=True` runs.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tallyformer.errors import ArtifactError
from tallyformer.export.verify import fresh_logits, largest_difference, own_logits, probe_ids
from tallyformer.inference.folder_defaults import careful_generation_config
from tallyformer.model.llama import to_llama
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

README = "README.md"
SAME_WEIGHTS = 1e-4
"""Relative difference of logits that two implementations in float32 may have."""
DTYPE_TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float32: SAME_WEIGHTS,
    torch.float16: 0.01,
    torch.bfloat16: 0.08,
}
"""The same for weights rounded to a type: 20 rounding steps of fp16 (2^-11), 40 of bf16 (2^-9),
since the errors of all layers add up."""


@dataclass(frozen=True)
class Verification:
    """What a fresh process found.

    Attributes:
        stored_difference: largest difference of logits to those of the source's weights, rounded
            to the stored type.
        rounding_difference: the same to the source's own logits.
        largest_logit: of the source, in absolute value.
    """

    stored_difference: float
    rounding_difference: float
    largest_logit: float


def write_hf_folder(
    model: Any,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    dtype: torch.dtype,
    card: Callable[[str], str],
) -> str:
    """Write everything but a manifest into an existing folder.

    Args:
        model: a TallyFormer, or another of transformers' classes; left as it is.
        tokenizer: the model's.
        folder: where to.
        dtype: of the stored weights.
        card: makes the text of README.md from the name of the class that loads the folder.

    Returns:
        The class that loads the folder, "LlamaForCausalLM" or "TallyFormerForCausalLM".
    """
    exported = _exported(model).to(dtype)
    exported.generation_config = careful_generation_config(
        eot_id=tokenizer.eot_id, pad_id=tokenizer.pad_id
    )
    exported.save_pretrained(folder)
    tokenizer.save(folder, model_max_length=model.config.max_position_embeddings)
    name = type(exported).__name__
    (folder / README).write_text(card(name), encoding="utf-8")
    _same_permissions(folder)
    return name


def verify_hf_folder(model: Any, folder: Path, *, dtype: torch.dtype) -> Verification:
    """Load a written folder in a fresh process and compare its logits with the model's.

    Raises:
        ArtifactError: it cannot be loaded there, or its logits differ by more than `dtype` allows.
    """
    ids_BT = probe_ids(model.config.vocab_size, model.config.max_position_embeddings)
    own, found = own_logits(model, ids_BT), fresh_logits(folder, ids_BT)
    found_difference = Verification(
        stored_difference=largest_difference(found, own_logits(_rounded(model, dtype), ids_BT)),
        rounding_difference=largest_difference(found, own),
        largest_logit=float(own.abs().max()),
    )
    scale = max(1.0, found_difference.largest_logit)
    for difference, tolerance in (
        (found_difference.stored_difference, SAME_WEIGHTS * scale),
        (found_difference.rounding_difference, DTYPE_TOLERANCE[dtype] * scale),
    ):
        if not difference <= tolerance:
            raise ArtifactError(
                f"{folder}: its logits differ from the model's by {difference:.2g}, more than "
                f"{tolerance:.2g}; it is not kept. Export again, with export.dtype=float32 if "
                f"{str(dtype).removeprefix('torch.')} is too coarse for this model"
            )
    return found_difference


def _exported(model: Any) -> Any:
    if isinstance(model, TallyFormerForCausalLM):
        with contextlib.suppress(ValueError):  # not of Llama's shape
            return to_llama(model)
    return copy.deepcopy(model)


def _same_permissions(folder: Path) -> None:
    """Whoever may read the configuration may read the weights; safetensors writes them 0600."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)


@torch.no_grad()
def _rounded(model: Any, dtype: torch.dtype) -> Any:
    """The weights as they are stored, computing in float32 like the fresh process."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.copy_(parameter.to(dtype))
    return rounded
