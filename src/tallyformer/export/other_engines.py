"""`tallyformer export --format`: a model's folder becomes a folder that another engine loads."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tallyformer.artifacts.atomic import atomic_folder
from tallyformer.artifacts.manifest import MANIFEST, file_entry, write_manifest
from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.paths import usable_path
from tallyformer.artifacts.versions import installed_versions, utc_now
from tallyformer.errors import ArtifactError, CheckpointError, TallyFormerError
from tallyformer.export.decoder import Source, read_decoder
from tallyformer.export.engine_check import OtherEngine, Tolerance, check_engine
from tallyformer.export.formats import WHOLE_NUMBERS, check_format
from tallyformer.export.hf_folder import README, verify_hf_folder, write_hf_folder
from tallyformer.export.reference.checks import refuse_existing
from tallyformer.export.verify import largest_difference, own_logits, probe_ids
from tallyformer.export.whole_numbers import quantize_folder
from tallyformer.inference.folder_defaults import SETTINGS, check_settings
from tallyformer.model.loading import DTYPES, load_config, load_model
from tallyformer.model.pretrained import quiet_library
from tallyformer.tokenizer import Tokenizer

_FIX = "Give a model's folder, for example runs/quickstart/model"


WHOLE_NUMBERS_TOLERANCE = {"int8": 0.25, "int4": 1.0}
"""Largest difference of logits, as a share of the largest one."""


class EngineFormat(Protocol):
    """What the module of an engine's format offers."""

    TOLERANCE: dict[str, Tolerance]
    """By dtype."""

    def write(self, source: Source, folder: Path, *, dtype: str) -> None:
        """Write the model into an existing folder."""

    def rounding(self, dtype: str, matrix: np.ndarray) -> np.ndarray:
        """A matrix as it is stored."""

    def load(self, folder: Path, source: Source) -> OtherEngine:
        """The written model in the engine; what it was made from is at hand for comparisons."""


def export_model(folder: Path, out: Path, *, form: str, dtype: str | None = None) -> dict[str, Any]:
    """Write a model in a format; `out` appears after its engine has given the model's logits.

    Args:
        folder: a Hugging Face folder with a tokenizer: a TallyFormer, or a stock Llama.
        out: the folder to make.
        form: one of `FORMATS`.
        dtype: of the stored matrices; None is the format's default.

    Returns:
        What was written and how far its logits differ from the source's, as in the manifest.

    Raises:
        UsageError: the format has no such dtype, or needs a package that is not installed.
        ArtifactError: `out` exists, the source is damaged or has a shape that the format cannot
            express, or the engine does not give its logits.
        TokenizerError: the source's tokenizer is missing or is not a byte-level BPE.
    """
    dtype = check_format(form, dtype)
    folder, out = usable_path(folder), usable_path(out)
    refuse_existing(out)
    with quiet_library():
        model, tokenizer = _read(folder)
        with atomic_folder(out) as written:
            if form == "safetensors" and dtype is not None and dtype in WHOLE_NUMBERS:
                found = _write_whole_numbers(folder, model, tokenizer, written, dtype)
            elif form == "safetensors":
                dtype = dtype or _own_dtype(folder)
                found = _write_folder(folder, model, tokenizer, written, dtype)
            else:
                assert dtype is not None, form
                source = Source(folder, model, tokenizer, read_decoder(folder, fix=_FIX))
                found = _write_for_engine(source, written, _engine_format(form), dtype)
            metrics = {"format": form, "dtype": dtype, **found}
            _sign(written, folder, metrics)
    return metrics


def _read(folder: Path) -> tuple[Any, Tokenizer]:
    check_model_folder(folder)
    check_settings(folder)
    model = load_model(folder, dtype="float32", fix=_FIX)
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise CheckpointError(f"{folder}: {name} holds numbers that are not finite. {_FIX}")
    tokenizer = Tokenizer.from_pretrained(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ArtifactError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids and the model "
            f"{model.config.vocab_size}. Give a model's folder with its own tokenizer"
        )
    return model, tokenizer


def _own_dtype(folder: Path) -> str:
    stored = load_config(folder, revision=None, fix=_FIX).dtype
    return next((name for name, dtype in DTYPES.items() if dtype == stored), "float32")


def _write_folder(
    folder: Path, model: Any, tokenizer: Tokenizer, written: Path, dtype: str
) -> dict[str, Any]:
    readme = folder / README
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    write_hf_folder(model, tokenizer, written, dtype=DTYPES[dtype], card=lambda _: text)
    if not text:
        (written / README).unlink()
    _copy_settings(folder, written)
    return asdict(verify_hf_folder(model, written, dtype=DTYPES[dtype]))


def _write_whole_numbers(
    folder: Path, model: Any, tokenizer: Tokenizer, written: Path, dtype: str
) -> dict[str, Any]:
    """A folder for our own engine; its card would tell how transformers loads it, which it cannot.

    Raises:
        ArtifactError: the model is of a kind that has no whole numbers, or too much is lost.
    """
    decoder = read_decoder(folder, fix=_FIX)
    write_hf_folder(model, tokenizer, written, dtype=torch.float32, card=lambda _: "")
    (written / README).unlink()
    _copy_settings(folder, written)
    quantize_folder(written, WHOLE_NUMBERS[dtype])
    ids_BT = probe_ids(decoder.shape.vocab, decoder.shape.context)
    own = own_logits(model, ids_BT)
    difference = largest_difference(own_logits(load_model(written), ids_BT), own)
    largest = float(own.abs().max())
    if not difference <= WHOLE_NUMBERS_TOLERANCE[dtype] * max(1.0, largest):
        raise ArtifactError(
            f"{folder}: {dtype} changes its logits by {difference:.2g}, and the largest is "
            f"{largest:.2g}; it is not kept. Use --dtype int8 or bfloat16"
        )
    return {"engine": "TallyFormer", "rounding_difference": difference, "largest_logit": largest}


def _engine_format(form: str) -> EngineFormat:
    """Imported when it is used: each needs packages that others do not."""
    if form == "onnx":
        from tallyformer.export import onnx

        return onnx
    if form == "gguf":
        from tallyformer.export import gguf

        return gguf
    from tallyformer.export import ctranslate2

    return ctranslate2


def _write_for_engine(
    source: Source, written: Path, form: EngineFormat, dtype: str
) -> dict[str, Any]:
    form.write(source, written, dtype=dtype)
    _copy_settings(source.folder, written)
    try:
        found = check_engine(
            form.load(written, source),
            source.model,
            source.tokenizer,
            lambda matrix: form.rounding(dtype, matrix),
            tolerance=form.TOLERANCE[dtype],
        )
    except TallyFormerError as error:
        raise ArtifactError(f"{source.folder}: {error}") from None
    except Exception as error:  # each engine raises its own
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{source.folder}: what was written does not run in its engine ({reason}); it is not "
            "kept. Install another version of the engine's package"
        ) from error
    return asdict(found)


def _copy_settings(folder: Path, written: Path) -> None:
    """How the model wants to be sampled stays as the source says."""
    if (folder / SETTINGS).is_file():
        shutil.copyfile(folder / SETTINGS, written / SETTINGS)


def _sign(written: Path, folder: Path, metrics: dict[str, Any]) -> None:
    read = (f for f in sorted(folder.iterdir()) if f.suffix in (".safetensors", ".json"))
    write_manifest(
        written,
        stage="export",
        config={"format": metrics["format"], "dtype": metrics["dtype"]},
        seed=0,
        inputs={file.name: file_entry(file)["sha256"] for file in read if file.name != MANIFEST},
        metrics=metrics,
        files=[file for file in sorted(written.rglob("*")) if file.is_file()],
        versions=installed_versions(),
        now=utc_now(),
    )
