"""A run's models: new from a recipe's section, from a folder, to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tallyformer.config.model import ModelSection
from tallyformer.errors import ArtifactError
from tallyformer.inference.folder_defaults import careful_generation_config
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.loading import load_model
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.pretrained import quiet_library
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.random_state import preserved_random_states


def model_config(section: ModelSection, vocabulary: int, **changed: Any) -> TallyFormerConfig:
    """The configuration of the model that a section describes.

    Args:
        section: the recipe's.
        vocabulary: number of ids.
        changed: fields that the section lacks, or that a run overrides.
    """
    values = section.model_dump(exclude={"preset"})
    return TallyFormerConfig(**{**values, "vocab_size": vocabulary, **changed})


def new_model(
    section: ModelSection, tokenizer: Tokenizer, *, dropout: float | None, seed: int
) -> TallyFormerForCausalLM:
    """A model with seeded random weights; the process's generators are left as they were."""
    changed = {} if dropout is None else {"dropout": dropout}
    config = model_config(
        section,
        tokenizer.vocab_size,
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
        **changed,
    )
    with preserved_random_states(torch.device("cpu")):
        torch.manual_seed(seed)
        return TallyFormerForCausalLM(config)


def earlier_model(
    folder: Path, tokenizer: Tokenizer, *, dropout: float | None, made_by: str
) -> TallyFormerForCausalLM:
    """The weights of an earlier stage, in float32.

    Raises:
        ArtifactError: the folder cannot be loaded, or the vocabulary does not fit the tokenizer.
    """
    fix = f"Make it again: {made_by}"
    model = load_model(folder, dtype=torch.float32, dropout=dropout, fix=fix)
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ArtifactError(
            f"{folder}: has {model.config.vocab_size} ids, the tokenizer {tokenizer.vocab_size}. "
            f"Make it again with this tokenizer: {made_by}"
        )
    loaded: TallyFormerForCausalLM = model
    return loaded


def save_model(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer, folder: Path, *, dropout: float
) -> None:
    """A Hugging Face folder with the tokenizer.

    Args:
        dropout: what the configuration records: the recipe's, not the one a run overrode.
    """
    model.generation_config = careful_generation_config(
        eot_id=tokenizer.eot_id, pad_id=tokenizer.pad_id
    )
    trained_with = model.config.dropout
    model.config.dropout = dropout
    try:
        with quiet_library():
            model.save_pretrained(folder)
    finally:
        model.config.dropout = trained_with
    tokenizer.save(folder, model_max_length=model.config.max_position_embeddings)
