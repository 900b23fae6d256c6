"""A checkpoint of the earlier system becomes a Hugging Face folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tallyformer.artifacts.atomic import atomic_folder
from tallyformer.errors import CheckpointError, TokenizerError
from tallyformer.export.reference.checks import compare, refuse_existing, some
from tallyformer.export.reference.names import PREFIX, our_tensor
from tallyformer.export.reference.pickles import read_pickle
from tallyformer.inference.folder_defaults import careful_generation_config
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

_END_OF_TEXT = 50256
_RMS_EPS, _LAYERNORM_EPS = 1e-8, 1e-5


def import_reference(file: Path, out: Path, tokenizer: Tokenizer | None = None) -> Path:
    """Convert one checkpoint of the earlier system to a Hugging Face folder.

    The result has the same logits and the same dtype, and carries its code, so that
    `AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)` loads it anywhere. Training
    state and settings that do not shape the model (`extra`, z-loss, ...) are left behind.

    A post-norm checkpoint is read as `norm(x + f(x))`. A head whose stored matrix differs from
    the embedding's becomes an untied head, whatever the flag says, because that gives the logits
    of the stored tensors.

    Args:
        file: the `.pt` or `.pth` file.
        out: the folder to write; it appears only when it is complete.
        tokenizer: the one that the model was trained with, to be saved with it: a checkpoint
            holds none.

    Returns:
        `out`.

    Raises:
        CheckpointError: the file is missing, damaged, wants more than tensors and plain numbers,
            or its tensors do not fit its configuration.
        TokenizerError: the tokenizer has not as many ids as the model.
        ArtifactError: `out` exists.
    """
    refuse_existing(out)
    content = read_pickle(file)
    settings = _section(content, ("config_dict", "config"), file)
    tensors = _rename(_section(content, ("state_dict",), file), file)
    config = _configuration(settings, tensors, file)
    if tokenizer is not None and tokenizer.vocab_size != config.vocab_size:
        raise TokenizerError(
            f"{file}: the model has {config.vocab_size} ids, the tokenizer "
            f"{tokenizer.vocab_size}. Give the tokenizer that the model was trained with."
        )
    tensors.setdefault("lm_head.weight", tensors["model.token_embed.weight"])
    model = TallyFormerForCausalLM(config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    compare(expected, {name: tuple(t.shape) for name, t in tensors.items()}, file)
    model.to(_common_dtype(tensors, file)).load_state_dict(tensors)
    model.generation_config = careful_generation_config(
        eot_id=config.eos_token_id, pad_id=config.pad_token_id
    )
    with atomic_folder(out) as folder:
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save(folder, model_max_length=config.max_position_embeddings)
    return out


def _section(content: Any, names: tuple[str, ...], file: Path) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file}: holds a {type(content).__name__}, not a dictionary with state_dict and "
            "config_dict. Give a checkpoint that the earlier system of this name saved."
        )
    for name in names:
        if isinstance(content.get(name), Mapping):
            section: Mapping[str, Any] = content[name]
            return section
    raise CheckpointError(
        f"{file}: has no dictionary {' or '.join(names)}; it holds {sorted(map(str, content))}. "
        "Give a checkpoint that the earlier system of this name saved."
    )


def _rename(state: Mapping[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors under our names; raise for each name that is not the reference's."""
    renamed: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        bare = PREFIX.sub("", str(name))
        if bare.endswith(".attn.causal_mask"):
            continue  # a constant that its attention kept as a buffer
        ours = our_tensor(bare)
        if ours is None or not isinstance(tensor, torch.Tensor):
            unknown.append(str(name))
        elif ours in renamed:
            raise CheckpointError(
                f"{file}: {bare} is there twice, with and without a prefix. Remove one of the two."
            )
        else:
            renamed[ours] = tensor
    if unknown:
        raise CheckpointError(
            f"{file}: not a tensor of the earlier system's model: {some(unknown)}. "
            "Remove it, or give a checkpoint that the earlier system of this name saved."
        )
    return renamed


def _configuration(
    settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], file: Path
) -> TallyFormerConfig:
    embed = tensors.get("model.token_embed.weight")
    hidden_layer = tensors.get("model.blocks.0.mlp.fc1.weight")
    if embed is None or hidden_layer is None or embed.ndim != 2 or hidden_layer.ndim != 2:
        raise CheckpointError(
            f"{file}: token_embed.weight or attn_blocks.0.mlp.hidden.weight is missing or not a "
            "matrix. Give a checkpoint that the earlier system of this name saved."
        )
    blocks = {name.split(".")[2] for name in tensors if name.startswith("model.blocks.")}
    # The sizes must be those of the tensors before a model is built from them: a wrong number in
    # the file cannot then make us allocate more memory than the file itself takes.
    _agree(settings, {"vocab_size": embed.shape[0], "n_embed": embed.shape[1]}, file)
    _agree(settings, {"n_block": len(blocks)}, file)
    norm_type = _norm_type(settings, file)
    try:
        return TallyFormerConfig(
            vocab_size=embed.shape[0],
            hidden_size=embed.shape[1],
            num_hidden_layers=len(blocks),
            num_attention_heads=_integer(settings, "n_head", file),
            intermediate_size=hidden_layer.shape[0],
            max_position_embeddings=_integer(settings, "context_length", file),
            norm_type=norm_type,
            norm_placement=_norm_placement(settings, file),
            norm_eps=_RMS_EPS if norm_type == "rmsnorm" else _LAYERNORM_EPS,
            norm_bias="model.final_norm.bias" in tensors,
            rope_layout="interleaved",
            dropout=float(settings.get("dropout") or 0.0),
            tie_word_embeddings=_tied(settings, tensors),
            bos_token_id=_END_OF_TEXT if embed.shape[0] > _END_OF_TEXT else None,
            eos_token_id=_END_OF_TEXT if embed.shape[0] > _END_OF_TEXT else None,
            pad_token_id=_pad_token_id(settings, embed.shape[0], file),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: its configuration makes no model: {error} Correct its config_dict."
        ) from error


def _integer(settings: Mapping[str, Any], name: str, file: Path) -> int:
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(
            f"{file}: config_dict[{name!r}] is {value!r}, not a whole number. Correct it."
        )
    return value


def _pad_token_id(settings: Mapping[str, Any], vocab_size: int, file: Path) -> int | None:
    if settings.get("pad_token_id") is None:
        return None
    value = _integer(settings, "pad_token_id", file)
    if not 0 <= value < vocab_size:
        raise CheckpointError(
            f"{file}: config_dict['pad_token_id'] is {value}, but the ids end at "
            f"{vocab_size - 1}. Correct it, or set it to None."
        )
    return value


def _agree(settings: Mapping[str, Any], sizes: Mapping[str, int], file: Path) -> None:
    for name, size in sizes.items():
        if _integer(settings, name, file) != size:
            raise CheckpointError(
                f"{file}: config_dict[{name!r}] is {settings[name]}, but the tensors say {size}. "
                "The configuration belongs to another model: correct it."
            )


def _norm_type(settings: Mapping[str, Any], file: Path) -> str:
    """Read `norm_type` where it names a kind of norm, else the flag `rms_norm`."""
    named = str(settings.get("norm_type") or "").lower()
    if "rms" in named:
        return "rmsnorm"
    if "layer" in named:
        return "layernorm"
    if named and not re.search("pre|post", named):
        raise CheckpointError(
            f"{file}: config_dict['norm_type'] {named!r} is unknown. Use 'rmsnorm' or 'layernorm'."
        )
    return "layernorm" if settings.get("rms_norm") is False else "rmsnorm"


def _norm_placement(settings: Mapping[str, Any], file: Path) -> str:
    """Find "pre" or "post" in `norm_type` or `model_type`; a GPT without either is pre-norm."""
    for field in ("norm_type", "model_type"):
        said = re.search("pre|post", str(settings.get(field) or "").lower())
        if said:
            return said.group()
    model_type = settings.get("model_type")
    if model_type is None or re.search("gpt|tally|decoder", str(model_type).lower()):
        return "pre"
    raise CheckpointError(
        f"{file}: config_dict['model_type'] {model_type!r} is unknown. "
        "Use one that contains 'gpt', 'pre' or 'post'."
    )


def _tied(settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> bool:
    head = tensors.get("lm_head.weight")
    flag = settings.get("tie_word_embeddings", True)
    return bool(flag) and (head is None or torch.equal(head, tensors["model.token_embed.weight"]))


def _common_dtype(tensors: Mapping[str, torch.Tensor], file: Path) -> torch.dtype:
    """Return the narrowest dtype that holds every tensor exactly."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{file}: {name} holds {tensor.dtype}, not floating-point weights. "
                "Save the checkpoint without quantising it."
            )
    return functools.reduce(torch.promote_types, (t.dtype for t in tensors.values()))
