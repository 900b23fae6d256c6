"""A LoRA adapter of a reference model becomes one of an imported model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tallyformer.artifacts.atomic import atomic_folder, write_json
from tallyformer.artifacts.json_files import read_json
from tallyformer.errors import CheckpointError
from tallyformer.export.reference.checks import compare, refuse_existing
from tallyformer.export.reference.names import PREFIX, our_module
from tallyformer.export.reference.pickles import read_pickle
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

_FIX = "Give the folder that PEFT's save_pretrained wrote"
_ADAPTER_NAME = re.compile(r"^base_model\.model\.(.+?)(\.lora_[AB])?(?:\.default)?\.weight$")
_TARGETS = {
    "query": ("query",),
    "key": ("key",),
    "value": ("value",),
    "hidden": ("fc1",),
    "proj": ("proj", "fc2"),
}
_UNSUPPORTED = (
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
    "target_parameters",
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "layer_replication",
)


def import_reference_adapter(folder: Path, model: TallyFormerForCausalLM, out: Path) -> Path:
    """Convert a LoRA adapter that PEFT wrote for a reference model.

    The target `proj` named two layers there, in the attention and in the MLP; here they are
    `proj` and `fc2`. Load the result with `peft.PeftModel.from_pretrained(model, out)`.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).
        model: the imported base model, to check every shape against.
        out: the folder to write; it appears only when it is complete.

    Returns:
        `out`.

    Raises:
        CheckpointError: a file is missing or damaged, the adapter uses a PEFT feature that has no
            counterpart here, or a tensor does not fit the model.
        ArtifactError: `out` exists.
    """
    refuse_existing(out)
    config = _adapter_config(folder / "adapter_config.json")
    source, tensors = _read_adapter(folder)
    renamed = {_adapter_name(name, source): tensor for name, tensor in tensors.items()}
    expected = _adapter_shapes(config, model)
    compare(expected, {name: tuple(t.shape) for name, t in renamed.items()}, source)
    with atomic_folder(out) as partial:
        write_json(partial / "adapter_config.json", config)
        save_file(
            {name: tensor.contiguous() for name, tensor in renamed.items()},
            partial / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
    return out


def _adapter_config(file: Path) -> dict[str, Any]:
    """Return PEFT's configuration with our module names."""
    config = read_json(file, fix=_FIX, error=CheckpointError)
    _check_types(config, file)
    peft_type, targets = config.get("peft_type"), config["target_modules"]
    used = [name for name in _UNSUPPORTED if config.get(name)]
    if peft_type != "LORA" or used or config.get("bias", "none") != "none":
        raise CheckpointError(
            f"{file}: only plain LoRA can be imported; this is {peft_type} with "
            f"{used or 'bias ' + repr(config.get('bias'))}. Merge it in the earlier "
            "system of this name and import the merged checkpoint."
        )
    unknown = targets if isinstance(targets, str) else sorted(set(targets) - set(_TARGETS))
    if unknown:
        raise CheckpointError(
            f"{file}: target_modules {unknown!r} are not layers of the earlier system's model. "
            f"It has {sorted(_TARGETS)}."
        )
    if set(config.get("modules_to_save") or ()) - {"lm_head"}:
        raise CheckpointError(
            f"{file}: modules_to_save {config['modules_to_save']!r}: only lm_head can be imported. "
            "Merge the adapter in the earlier system of this name and import the merged checkpoint."
        )
    return {
        **config,
        "target_modules": sorted({ours for name in targets for ours in _TARGETS[name]}),
        "auto_mapping": None,  # it names the reference's own class
        "base_model_name_or_path": None,
    }


def _check_types(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a file whose values are not of the types that PEFT writes."""
    targets, saved, rank = (config.get(n) for n in ("target_modules", "modules_to_save", "r"))
    wrong = {
        "target_modules": not (isinstance(targets, str) or _is_names(targets)),
        "modules_to_save": not (saved is None or _is_names(saved)),
        "r": not isinstance(rank, int) or rank < 1,
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise CheckpointError(
            f"{file}: damaged, or not PEFT's ({name} is missing or wrong). {_FIX}"
        )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _read_adapter(folder: Path) -> tuple[Path, Mapping[str, torch.Tensor]]:
    file = folder / "adapter_model.safetensors"
    if file.is_file():
        try:
            return file, load_file(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged ({error}). Copy it again.") from error
    file = folder / "adapter_model.bin"
    content = read_pickle(file)
    if not isinstance(content, Mapping) or not all(
        isinstance(tensor, torch.Tensor) for tensor in content.values()
    ):
        raise CheckpointError(
            f"{file}: not a dictionary of tensors. Give the folder that PEFT's save_pretrained "
            "wrote."
        )
    return file, content


def _adapter_name(name: str, file: Path) -> str:
    """Return `base_model.model.<our module>[.lora_A].weight` for PEFT's name of a tensor."""
    parts = _ADAPTER_NAME.match(name)
    module = our_module(PREFIX.sub("", parts.group(1))) if parts else None
    if parts is None or module is None:
        raise CheckpointError(
            f"{file}: {name} is not part of a LoRA adapter of the earlier system's model. "
            "Merge the adapter in the earlier system of this name and import the merged checkpoint."
        )
    return f"base_model.model.{module}{parts.group(2) or ''}.weight"


def _adapter_shapes(
    config: Mapping[str, Any], model: TallyFormerForCausalLM
) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that the adapter must hold for `model`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        prefix = f"base_model.model.{name}"
        if name.startswith("model.blocks.") and name.split(".")[-1] in config["target_modules"]:
            assert isinstance(module, torch.nn.Linear)
            shapes[f"{prefix}.lora_A.weight"] = (config["r"], module.in_features)
            shapes[f"{prefix}.lora_B.weight"] = (module.out_features, config["r"])
    for name in config.get("modules_to_save") or ():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        shapes[f"base_model.model.{name}.weight"] = tuple(weight.shape)
    return shapes
