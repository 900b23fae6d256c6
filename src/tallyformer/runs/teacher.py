"""Loading a teacher and finding out which ids it shares with the student."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoTokenizer

from tallyformer.artifacts.manifest import sha256
from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.run_folder import BEST, RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError, TokenizerError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.loading import load_config, load_model
from tallyformer.runs.data import result_of
from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.loading import FILES, check_json, without_panic

_FIX = "Give teacher.source a folder or hub name of a causal language model"


def teacher_source(recipe: Recipe, folder: RunFolder) -> str:
    """Folder or hub name of the recipe's teacher."""
    assert recipe.teacher is not None
    if recipe.teacher.source is None:
        return str(folder.stage("teacher") / BEST)
    return recipe.locate(recipe.teacher.source, recipe.teacher.revision)


def teacher_revision(recipe: Recipe) -> str:
    """Which state of a hub name is the teacher."""
    assert recipe.teacher is not None
    return recipe.teacher.revision or "main"


def teacher_fingerprint(recipe: Recipe, folder: RunFolder) -> str:
    """Changes when the teacher does; of a hub name, the name and the revision."""
    assert recipe.teacher is not None
    if recipe.teacher.source is None:
        return result_of(folder, "teacher")
    source = Path(teacher_source(recipe, folder))
    if not source.is_dir():
        return f"hub:{recipe.teacher.source}@{teacher_revision(recipe)}"
    digest = hashlib.sha256()
    for file in sorted(
        f for f in source.iterdir() if f.suffix in (".safetensors", ".json", ".bin", ".txt")
    ):
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def load_teacher_model(
    source: str, dtype: torch.dtype, context: int, revision: str = "main"
) -> Any:
    """A causal language model, without running code of its folder.

    Args:
        source: folder or hub name.
        dtype: of its weights.
        context: positions it must be able to read.
        revision: of a hub name.

    Raises:
        ArtifactError: it cannot be loaded, or reads fewer positions.
    """
    check_model_folder(Path(source))
    try:
        model = load_model(source, dtype=dtype, revision=revision, fix=_FIX)
    except ArtifactError as error:
        raise ArtifactError(f"teacher {error}") from None
    _check_positions(source, model.config, context)
    return model


def check_teacher(
    source: str, context: int, tokenizer: Tokenizer | None, revision: str = "main"
) -> None:
    """Check what can be known of a teacher without loading its weights.

    Args:
        source: folder or hub name.
        context: positions it must be able to read.
        tokenizer: the student's; None if it is not known yet.
        revision: of a hub name.

    Raises:
        ArtifactError: it is not a causal language model, has no weights, or reads fewer positions.
        TokenizerError: as `shared_ids`.
    """
    try:
        config = load_config(source, revision=revision, fix=_FIX)
    except ArtifactError as error:
        raise ArtifactError(f"teacher {error}") from None
    ours = isinstance(config, TallyFormerConfig)
    if not ours and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ArtifactError(
            f"teacher {source}: {type(config).__name__} is of no causal language model. {_FIX}"
        )
    if Path(source).is_dir() and not _has_weights(Path(source)):
        raise ArtifactError(f"teacher {source}: it holds no weights. {_FIX}")
    _check_positions(source, config, context)
    if tokenizer is not None:
        theirs = _spellings(source, config, revision)
        _shared(source, theirs, tokenizer.spellings(), config.vocab_size, tokenizer)


def _check_positions(source: str, config: Any, context: int) -> None:
    if isinstance(config, TallyFormerConfig):
        return  # it computes at any position
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and most < context:
        raise ArtifactError(
            f"teacher {source}: reads {most} positions, the model {context}. Lower "
            "model.max_position_embeddings, or use another teacher"
        )


def _has_weights(folder: Path) -> bool:
    return any(f.suffix in (".safetensors", ".bin") for f in folder.iterdir())


def shared_ids(
    source: str, model: Any, tokenizer_folder: Path, tokenizer: Tokenizer, revision: str = "main"
) -> int:
    """How many ids from 0 on mean the same bytes to teacher and student.

    The teacher's head may have more rows than its tokenizer has ids; those were never trained
    and are not shared. Control tokens that only one of the two has end the shared range.

    Raises:
        TokenizerError: an ordinary id stands for other bytes, or the teacher has no tokenizer.
    """
    theirs = _spellings(source, model.config, revision)
    ours = _spellings(str(tokenizer_folder))
    head_rows = model.get_output_embeddings().weight.shape[0]
    return _shared(source, theirs, ours, head_rows, tokenizer)


def _shared(
    source: str,
    theirs: list[str | None],
    ours: list[str | None],
    head_rows: int,
    tokenizer: Tokenizer,
) -> int:
    most = min(len(theirs), len(ours), head_rows)
    first = next((i for i in range(most) if theirs[i] != ours[i]), most)
    ordinary = [i for i in range(first, most) if i not in tokenizer.control_ids]
    if ordinary and theirs[ordinary[0]] != ours[ordinary[0]]:
        wrong = ordinary[0]
        raise TokenizerError(
            f"teacher {source}: its tokenizer is another one; id {wrong} is {theirs[wrong]!r} "
            f"there and {ours[wrong]!r} here. Use a teacher with this run's tokenizer, or train "
            "one with teacher.model"
        )
    return first


def _spellings(source: str, config: Any = None, revision: str = "main") -> list[str | None]:
    """The vocabulary's spelling of each id; None where an id is not used."""
    try:
        own = Path(source) / FILES[0]
        if os.path.lexists(own):
            check_json(own)
        with without_panic():
            found = AutoTokenizer.from_pretrained(
                source, config=config, revision=revision, trust_remote_code=False
            )
        # Some classes make an empty tokenizer of a folder that holds none.
        if not set(found.get_vocab()) - set(found.all_special_tokens):
            raise ValueError("it has no vocabulary")
    except Exception as error:  # transformers and tokenizers raise what they like
        reason = " ".join(str(error).split())[:300]
        raise TokenizerError(
            f"teacher {source}: its tokenizer cannot be loaded ({reason}), so its ids cannot be "
            "compared with the student's. Put its tokenizer files into the folder"
        ) from None
    spellings: list[str | None] = found.convert_ids_to_tokens(list(range(len(found))))
    return spellings
