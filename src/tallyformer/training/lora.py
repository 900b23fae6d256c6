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
from collections.abc import Iterator, Sequence
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
        trainable_token_indices={"token_embed": list(control_tokens)} if control_tokens else None,
    )
    with _quiet_peft():
        return get_peft_model(model, config)


def save_adapter(adapted: PeftModel, folder: Path, modules_to_save: Sequence[str]) -> None:
    """Write an adapter in PEFT's own format.

    PEFT replaces a tied head in `modules_to_save` by the embedding when it adds the adapter, and
    does not find the tie again from that entry. The file names what the recipe named, from
    which PEFT ties both anew when it loads the adapter.
    """
    adapted.save_pretrained(str(folder))
    path = folder / ADAPTER_CONFIG
    values = read_json(path, fix="Make the adapter again")
    values["modules_to_save"] = list(modules_to_save) or None
    write_json(path, values)


def load_adapter(model: Any, folder: Path, made_by: str) -> PeftModel:
    """Put a saved adapter on its base model, in place.

    Args:
        made_by: the command that makes it, named in errors.

    Raises:
        ArtifactError: it is missing, damaged, or was made for another model.
    """
    try:
        with _quiet_peft(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{folder}: no adapter can be loaded from it ({_line(error)}). Delete "
            f"{folder.parent} and make it again: {made_by}"
        ) from None
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
    """Check that a model has the modules that a section names; it may have no weights.

    Raises:
        UsageError: a named module does not exist, or the head is to get low-rank factors.
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
