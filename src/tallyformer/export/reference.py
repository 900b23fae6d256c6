"""Import of the reference system's checkpoints and LoRA adapters.

Its checkpoints are pickles. They are read by torch's weights-only unpickler, which calls nothing
that is not on an allow-list; to that list this file adds plain NumPy numbers, which its metrics
are made of, and reads them with stand-ins of its own: a file never reaches NumPy's constructors.

The weights need no arithmetic. The reference rotates the channel pairs x[0::2], x[1::2] and
concatenates the halves; so do we for the "interleaved" layout (see model/rope.py), and scores do
not depend on an order of channels that queries and keys share.
"""

from __future__ import annotations

import functools
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tallyformer.artifacts.atomic import atomic_folder, write_json
from tallyformer.errors import ArtifactError, CheckpointError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

_PREFIX = re.compile(r"^(?:_orig_mod\.|module\.)+")
_BLOCK = re.compile(r"^attn_blocks\.(\d+)\.(.+)$")
_IN_BLOCK = {
    "ln1": "attn_norm",
    "ln2": "mlp_norm",
    "attn.query": "attention.query",
    "attn.key": "attention.key",
    "attn.value": "attention.value",
    "attn.proj": "attention.proj",
    "mlp.hidden": "mlp.fc1",
    "mlp.proj": "mlp.fc2",
}
_OUTSIDE = {
    "token_embed": "model.token_embed",
    "layer_norm": "model.final_norm",
    "lm_head": "lm_head",
}
_END_OF_TEXT = 50256
_RMS_EPS, _LAYERNORM_EPS = 1e-8, 1e-5


def import_reference(file: Path, out: Path) -> Path:
    """Convert one checkpoint of the reference system to a Hugging Face folder.

    The result has the same logits and the same dtype, and carries its code, so that
    `AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)` loads it anywhere. No
    tokenizer is written: a checkpoint holds none. Training state and settings that do not shape
    the model (`extra`, z-loss, ...) are left behind.

    A post-norm checkpoint is read as `norm(x + f(x))`. A head whose stored matrix differs from
    the embedding's becomes an untied head, whatever the flag says, because that gives the logits
    of the stored tensors.

    Args:
        file: the `.pt` or `.pth` file.
        out: the folder to write; it appears only when it is complete.

    Returns:
        `out`.

    Raises:
        CheckpointError: the file is missing, damaged, wants more than tensors and plain numbers,
            or its tensors do not fit its configuration.
        ArtifactError: `out` exists.
    """
    _refuse_existing(out)
    content = _read_pickle(file)
    settings = _section(content, ("config_dict", "config"), file)
    tensors = _rename(_section(content, ("state_dict",), file), file)
    config = _configuration(settings, tensors, file)
    tensors.setdefault("lm_head.weight", tensors["model.token_embed.weight"])
    model = TallyFormerForCausalLM(config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    _compare(expected, {name: tuple(t.shape) for name, t in tensors.items()}, file)
    model.to(_common_dtype(tensors, file)).load_state_dict(tensors)
    with atomic_folder(out) as folder:
        model.save_pretrained(folder)
    return out


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
    _refuse_existing(out)
    config = _adapter_config(folder / "adapter_config.json")
    source, tensors = _read_adapter(folder)
    renamed = {_adapter_name(name, source): tensor for name, tensor in tensors.items()}
    expected = _adapter_shapes(config, model)
    _compare(expected, {name: tuple(t.shape) for name, t in renamed.items()}, source)
    with atomic_folder(out) as partial:
        write_json(partial / "adapter_config.json", config)
        save_file(
            {name: tensor.contiguous() for name, tensor in renamed.items()},
            partial / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
    return out


# --- reading a pickle without running it -------------------------------------------------------


class _PlainDtype:
    """Stands in for `numpy.dtype` while a pickle is read; knows plain numbers only."""

    _CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

    def __init__(self, code: Any, *_options: Any) -> None:
        if code not in self._CODES:
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) is not a plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _plain_scalar(dtype: _PlainDtype, data: bytes) -> bool | int | float:
    """Stand in for NumPy's scalar constructor; the result is a Python number."""
    number: bool | int | float = np.frombuffer(data, dtype.dtype, count=1)[0].item()
    return number


_ALLOWED: list[Any] = [
    (_PlainDtype, "numpy.dtype"),
    (_plain_scalar, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_plain_scalar, "numpy._core.multiarray.scalar"),  # NumPy 2
]


def _read_pickle(file: Path) -> Any:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file. Give the path of a reference checkpoint.")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {wanted.group(1)}" if wanted else "it is not a plain checkpoint"
        raise CheckpointError(
            f"{file}: refused, and nothing of it was run: {what}, and only tensors and plain "
            "numbers are read. Save it again with only state_dict and config_dict."
        ) from error
    except Exception as error:
        # A damaged file makes the unpickler fail anywhere, with almost any exception.
        raise CheckpointError(
            f"{file}: damaged or not a torch checkpoint ({type(error).__name__}: {error}). "
            "Copy it again from its source."
        ) from error


# --- checkpoints -------------------------------------------------------------------------------


def _section(content: Any, names: tuple[str, ...], file: Path) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file}: holds a {type(content).__name__}, not a dictionary with state_dict and "
            "config_dict. Give a checkpoint that the reference system saved."
        )
    for name in names:
        if isinstance(content.get(name), Mapping):
            section: Mapping[str, Any] = content[name]
            return section
    raise CheckpointError(
        f"{file}: has no dictionary {' or '.join(names)}; it holds {sorted(map(str, content))}. "
        "Give a checkpoint that the reference system saved."
    )


def _rename(state: Mapping[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors under our names; raise for each name that is not the reference's."""
    renamed: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        bare = _PREFIX.sub("", str(name))
        if bare.endswith(".attn.causal_mask"):
            continue  # a constant that its attention kept as a buffer
        ours = _our_tensor(bare)
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
            f"{file}: not a tensor of the reference model: {_some(unknown)}. "
            "Remove it, or give a checkpoint that the reference system saved."
        )
    return renamed


def _our_tensor(name: str) -> str | None:
    module, _, kind = name.rpartition(".")
    ours = _our_module(module)
    if ours is None:
        return None
    if ours.endswith("norm"):
        return {"scale": f"{ours}.weight", "bias": f"{ours}.bias"}.get(kind)
    return f"{ours}.{kind}" if kind in ("weight", "bias") else None


def _our_module(name: str) -> str | None:
    block = _BLOCK.match(name)
    if block is None:
        return _OUTSIDE.get(name)
    inner = _IN_BLOCK.get(block.group(2))
    return f"model.blocks.{block.group(1)}.{inner}" if inner else None


def _configuration(
    settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], file: Path
) -> TallyFormerConfig:
    embed = tensors.get("model.token_embed.weight")
    hidden_layer = tensors.get("model.blocks.0.mlp.fc1.weight")
    if embed is None or hidden_layer is None or embed.ndim != 2 or hidden_layer.ndim != 2:
        raise CheckpointError(
            f"{file}: token_embed.weight or attn_blocks.0.mlp.hidden.weight is missing or not a "
            "matrix. Give a checkpoint that the reference system saved."
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
            pad_token_id=settings.get("pad_token_id"),
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


# --- adapters ----------------------------------------------------------------------------------

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


def _adapter_config(file: Path) -> dict[str, Any]:
    """Return PEFT's configuration with our module names."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        peft_type, targets = config["peft_type"], config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: missing or damaged ({type(error).__name__}: {error}). "
            "Give the folder that PEFT's save_pretrained wrote."
        ) from error
    used = [name for name in _UNSUPPORTED if config.get(name)]
    if peft_type != "LORA" or used or config.get("bias", "none") != "none":
        raise CheckpointError(
            f"{file}: only plain LoRA can be imported; this is {peft_type} with "
            f"{used or 'bias ' + repr(config.get('bias'))}. Merge it in the reference system and "
            "import the merged checkpoint."
        )
    unknown = targets if isinstance(targets, str) else sorted(set(targets) - set(_TARGETS))
    if unknown:
        raise CheckpointError(
            f"{file}: target_modules {unknown!r} are not layers of the reference model. "
            f"It has {sorted(_TARGETS)}."
        )
    if set(config.get("modules_to_save") or ()) - {"lm_head"}:
        raise CheckpointError(
            f"{file}: modules_to_save {config['modules_to_save']!r}: only lm_head can be imported. "
            "Merge the adapter in the reference system and import the merged checkpoint."
        )
    return {
        **config,
        "target_modules": sorted({ours for name in targets for ours in _TARGETS[name]}),
        "auto_mapping": None,  # it names the reference's own class
        "base_model_name_or_path": None,
    }


def _read_adapter(folder: Path) -> tuple[Path, Mapping[str, torch.Tensor]]:
    file = folder / "adapter_model.safetensors"
    if file.is_file():
        try:
            return file, load_file(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged ({error}). Copy it again.") from error
    file = folder / "adapter_model.bin"
    content = _read_pickle(file)
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
    module = _our_module(_PREFIX.sub("", parts.group(1))) if parts else None
    if parts is None or module is None:
        raise CheckpointError(
            f"{file}: {name} is not part of a LoRA adapter of the reference model. "
            "Merge the adapter in the reference system and import the merged checkpoint."
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


# --- both --------------------------------------------------------------------------------------


def _compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], file: Path
) -> None:
    problems = []
    if missing := sorted(set(expected) - set(found)):
        problems.append(f"missing {_some(missing)}")
    if unexpected := sorted(set(found) - set(expected)):
        problems.append(f"unexpected {_some(unexpected)}")
    wrong = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in sorted(set(expected) & set(found))
        if expected[name] != found[name]
    ]
    if wrong:
        problems.append(f"wrong shape {_some(wrong)}")
    if problems:
        raise CheckpointError(
            f"{file}: its tensors do not fit the model (our names): {'; '.join(problems)}. "
            "The file belongs to another configuration or is incomplete: copy it again."
        )


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ArtifactError(f"{out}: exists already. Choose another --out, or delete it first.")
