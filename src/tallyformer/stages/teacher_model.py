"""Loading a teacher and finding out which ids it shares with the student."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from tallyformer.artifacts.manifest import sha256
from tallyformer.artifacts.run_folder import BEST, RunFolder
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError, TokenizerError
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.model.pretrained import check_complete, quiet_library
from tallyformer.stages.training_stage import (
    fingerprint_of,
)
from tallyformer.tokenizer import Tokenizer

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
        return fingerprint_of(folder, "teacher")
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
    try:
        with quiet_library():
            described, _ = TallyFormerConfig.get_config_dict(source, revision=revision)
            ours = described.get("model_type") == TallyFormerConfig.model_type
            if ours:
                model, report = TallyFormerForCausalLM.from_pretrained(
                    source, dtype=dtype, revision=revision, output_loading_info=True
                )
            else:
                model, report = AutoModelForCausalLM.from_pretrained(
                    source,
                    dtype=dtype,
                    revision=revision,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        check_complete(report, exactly=ours)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"teacher {source}: cannot be loaded ({reason}). {_FIX}") from None
    most = getattr(model.config, "max_position_embeddings", None)
    if not ours and most is not None and most < context:
        raise ArtifactError(
            f"teacher {source}: reads {most} positions, the model {context}. Lower "
            "model.max_position_embeddings, or use another teacher"
        )
    return model


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
        found = AutoTokenizer.from_pretrained(
            source, config=config, revision=revision, trust_remote_code=False
        )
        # Some classes make an empty tokenizer of a folder that holds none.
        if not set(found.get_vocab()) - set(found.all_special_tokens):
            raise ValueError("it has no vocabulary")
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TokenizerError(
            f"teacher {source}: its tokenizer cannot be loaded ({reason}), so its ids cannot be "
            "compared with the student's. Put its tokenizer files into the folder"
        ) from None
    spellings: list[str | None] = found.convert_ids_to_tokens(list(range(len(found))))
    return spellings
