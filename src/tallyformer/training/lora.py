"""LoRA on our models through the PEFT library: adding, saving and merging adapters.

A tied head stays tied. `modules_to_save: lm_head` trains a full copy of the head; PEFT's
`ensure_weight_tying` makes the token embedding that same copy. So the control tokens of the chat
format, which pretraining never shows, learn their input embeddings too, and the merged model has
the shape and size of its base.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError

from tallyformer.artifacts.atomic import write_json
from tallyformer.artifacts.json_files import read_json
from tallyformer.config.sft import LoraSection
from tallyformer.errors import ArtifactError, UsageError

HEAD = "lm_head"
EMBEDDING = "token_embed"
ADAPTER_CONFIG = "adapter_config.json"


def add_lora(model: Any, section: LoraSection, control_tokens: Sequence[int] = ()) -> PeftModel:
    """Put trainable adapters into a model, in place; all else is frozen.

    Raises:
        UsageError: a named module does not exist, or the head is to get low-rank factors.
    """
    check_lora(model, section)
    keeps_tie = HEAD in section.modules_to_save and model.config.tie_word_embeddings
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=list(section.target_modules),
        modules_to_save=list(section.modules_to_save) or None,
        ensure_weight_tying=keeps_tie,
        trainable_token_indices={EMBEDDING: list(control_tokens)} if control_tokens else None,
    )
    with _quiet_peft():
        return get_peft_model(model, config)


def save_adapter(adapted: PeftModel, folder: Path, modules_to_save: Sequence[str]) -> None:
    """Write an adapter in PEFT's own format.

    PEFT replaces a tied head in `modules_to_save` by the embedding when it adds the adapter, and
    does not find the tie again from that entry. The file names what the recipe named, from
    which PEFT ties both again when it loads the adapter.
    """
    adapted.save_pretrained(str(folder))
    path = folder / ADAPTER_CONFIG
    values = read_json(path, fix="Make the adapter again")
    values["modules_to_save"] = list(modules_to_save) or None
    # The folder of the base today; a run may be moved, and its stages know the base without it.
    values["base_model_name_or_path"] = None
    write_json(path, values)
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in, with the base's folder


def load_adapter(model: Any, folder: Path, made_by: str) -> PeftModel:
    """Put a saved adapter on its base model, in place.

    Args:
        made_by: the command that makes it, named in errors.

    Raises:
        ArtifactError: it is missing, damaged, or was made for another model.
    """
    _check_config(folder, made_by)
    try:
        with _quiet_peft(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError, AttributeError) as error:
        raise _damaged(folder, _line(error), made_by) from None
    except (RuntimeError, ValueError, KeyError) as error:
        raise _another_model(folder, _line(error), made_by) from None
    missing = [str(w.message) for w in said if "missing adapter keys" in str(w.message)]
    if missing:
        raise _another_model(folder, missing[0], made_by)
    return adapted


def merge(adapted: PeftModel) -> Any:
    """The base model with the adapter in its weights; `adapted` must not be used afterwards.

    A head that was trained apart from the embedding leaves the model untied, and its
    configuration says so.
    """
    with _quiet_peft():
        model: Any = adapted.merge_and_unload()
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    model.config.tie_word_embeddings = head.weight is embedding.weight or torch.equal(
        head.weight, embedding.weight
    )
    return model


def check_lora(model: Any, section: LoraSection) -> None:
    """Check that what a section asks for can be trained and merged; a model may have no weights.

    Raises:
        UsageError: a named module does not exist, cannot have low-rank factors, would be trained
            twice, or is tied to the head that would stay behind.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules() if name}
    for field in ("target_modules", "modules_to_save"):
        for wanted in getattr(section, field):
            if wanted not in names:
                raise UsageError(
                    f"sft.lora.{field}: the model has no module {wanted!r}; there are: "
                    f"{', '.join(sorted(n for n in names if not n.isdigit()))}"
                )
    if HEAD in section.target_modules:
        raise UsageError(
            f"sft.lora.target_modules: {HEAD!r} is the head, which is trained whole or not at "
            "all. Name it in sft.lora.modules_to_save"
        )
    for target in section.target_modules:
        _check_target(model, section, target)
    if (
        EMBEDDING in section.target_modules
        and model.config.tie_word_embeddings
        and HEAD not in section.modules_to_save
    ):
        raise UsageError(
            f"sft.lora.target_modules: {EMBEDDING!r} is tied to the head, which has no low-rank "
            f"factors, so a merge would lose them. Add {HEAD!r} to sft.lora.modules_to_save, or "
            f"leave {EMBEDDING!r} out"
        )


def _check_target(model: Any, section: LoraSection, target: str) -> None:
    """A module that gets low-rank factors must be a layer, and must not be trained whole."""
    found = [(path, m) for path, m in model.named_modules() if path.rpartition(".")[2] == target]
    if not all(isinstance(module, torch.nn.Linear | torch.nn.Embedding) for _, module in found):
        raise UsageError(
            f"sft.lora.target_modules: {target!r} is not a layer with one matrix. Name the layers "
            "in it, or name it in sft.lora.modules_to_save"
        )
    whole = set(section.modules_to_save)
    if all(whole & set(path.split(".")) for path, _ in found):
        raise UsageError(
            f"sft.lora.target_modules: {target!r} is trained whole by sft.lora.modules_to_save, so "
            "it gets no low-rank factors. Name it in one of the two"
        )


def _check_config(folder: Path, made_by: str) -> None:
    """PEFT puts its defaults in the place of what its file lacks, which is another adapter."""
    path = folder / ADAPTER_CONFIG
    fix = f"Delete {folder.parent} and make it again: {made_by}"
    values = read_json(path, fix=fix)
    for name, is_right in _CONFIG_VALUES.items():
        if name not in values or not is_right(values[name]):
            raise _damaged(folder, f"{name} is missing or wrong in {ADAPTER_CONFIG}", made_by)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_CONFIG_VALUES: Mapping[str, Callable[[Any], bool]] = {
    "peft_type": lambda value: value == "LORA",
    "r": _is_size,
    "lora_alpha": lambda value: _is_size(value) or (isinstance(value, float) and value > 0),
    "target_modules": lambda value: (
        isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
    ),
    "modules_to_save": lambda value: (
        value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))
    ),
}


def _damaged(folder: Path, reason: str, made_by: str) -> ArtifactError:
    return ArtifactError(
        f"{folder}: no adapter can be loaded from it ({reason}). Delete {folder.parent} and make "
        f"it again: {made_by}"
    )


def _another_model(folder: Path, reason: str, made_by: str) -> ArtifactError:
    return ArtifactError(
        f"{folder}: the adapter was made for another model ({reason}). Use the base model it was "
        f"trained on, or delete {folder.parent} and make it again: {made_by}"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """Leave out what PEFT says about things that are so on purpose.

    It asks transformers by a name that transformers has renamed, and warns of a head that a
    merge unties, which `merge` handles.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied")
        yield
