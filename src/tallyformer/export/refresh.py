"""A folder that was written earlier gets today's code and settings; its weights stay as they are.

The code that travels in a folder is that of the day it was written, and transformers changes: from
5.24 on it calls the cache by another name, and older code then generates without one. The new
folder is built beside the old one, loaded by a fresh process, and takes its place whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import custom_object_save

from tallyformer.artifacts.atomic import atomic_folder, recover_replaced
from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.lock import alone_with
from tallyformer.artifacts.manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    check_file,
    read_manifest,
    rebound,
    resign,
    resigned,
    write_signed,
)
from tallyformer.artifacts.model_folder import OUTPUTS, RESULT
from tallyformer.artifacts.paths import usable_path
from tallyformer.artifacts.program import doctor
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.artifacts.stages import STAGES
from tallyformer.errors import ArtifactError
from tallyformer.export.hf_folder import SAME_WEIGHTS
from tallyformer.export.verify import fresh_logits, largest_difference, own_logits, probe_ids
from tallyformer.inference.folder_defaults import SETTINGS, careful_generation_config
from tallyformer.model.loading import load_model
from tallyformer.model.modeling_tallyformer import auto_map
from tallyformer.model.pretrained import quiet_library
from tallyformer.model.weights import quantized_bits
from tallyformer.tokenizer import Tokenizer

CONFIG = "config.json"


def _is_rewritten(file: Path) -> bool:
    return file.suffix == ".py" or file.name in (CONFIG, SETTINGS)


def refresh_folder(folder: Path) -> list[str]:
    """Write today's code, configuration and generation_config into a model folder.

    The manifest that vouches for the folder is signed again, as are those of later stages of the
    same run, which record its result.

    Args:
        folder: one that this package wrote: `model/`, `merged/`, `best/`, or a copy of one.

    Returns:
        The names of the files that changed.

    Raises:
        ArtifactError: it is not such a folder, its weights or its tokenizer are damaged, or the new
            folder is not the same model; the folder is then left as it was. Another process
            works in its run, or beside it.
        UsageError: it is not a path.
    """
    folder = usable_path(folder).resolve()
    if not folder.parent.is_dir():
        raise _no_folder(folder)
    with alone_with(folder):
        return _refresh(folder)


def _refresh(folder: Path) -> list[str]:
    recover_replaced(folder)
    voucher = _voucher(folder)
    _check_ours(folder, voucher)
    manifest = _checked_manifest(folder, voucher) if voucher else None
    with quiet_library():
        model = load_model(folder, dtype="float32")
        with atomic_folder(folder) as fresh:
            _copy(folder, fresh)
            _write_settings(model, Tokenizer.from_pretrained(folder), folder, fresh)
            changed = _differing(folder, fresh)
            _check_same(model, fresh)
            if manifest and voucher == folder:
                resign(fresh, manifest, _listed(manifest, fresh, ""))
    if manifest and voucher and voucher != folder:
        _resign_run(voucher, manifest, _listed(manifest, voucher, f"{folder.name}/"))
    return changed


def _voucher(folder: Path) -> Path | None:
    """The folder whose manifest lists this one's files."""
    if os.path.lexists(folder / MANIFEST):
        return folder
    above = folder.parent
    if folder.name in OUTPUTS and os.path.lexists(above / MANIFEST):
        return above
    return None


def _check_ours(folder: Path, voucher: Path | None) -> None:
    if not folder.is_dir():
        raise _no_folder(folder)
    config = read_json(folder / CONFIG, fix="Give a model's folder")
    if quantized_bits(config) is not None:
        raise ArtifactError(
            f"{folder}: holds whole numbers and no code, so there is nothing to refresh. Refresh "
            "the folder it was made from"
        )
    kind = config.get("model_type")
    if kind != "tallyformer" and voucher is None:
        raise ArtifactError(
            f"{folder}: TallyFormer did not write it (model_type {str(kind)[:40]!r}), so there is "
            "nothing to refresh. Give a model's folder of a run, or a copy of one"
        )
    if voucher is None and os.path.lexists(folder.parent / RESULT):
        raise ArtifactError(
            f"{folder}: belongs to a phase of distillation, which is read again to resume. Refresh "
            "best/ of the finished stage"
        )


def _no_folder(folder: Path) -> ArtifactError:
    return ArtifactError(f"{folder}: no such folder. Give a model's folder")


def _checked_manifest(folder: Path, voucher: Path) -> Manifest:
    """The manifest, if what stays in the folder is what it lists.

    Files that are rewritten may differ: an earlier refresh may have been cut off.
    """
    fix = "Make or fetch the folder again"
    manifest = read_manifest(voucher, made_by="tallyformer export", fix=fix)
    for name, entry in manifest.files.items():
        file = voucher / name
        if file.is_relative_to(folder) and not _is_rewritten(file) and file.suffix != ".md":
            check_file(file, entry, fix=fix)
    return manifest


def _copy(folder: Path, fresh: Path) -> None:
    """The same files by the same bytes on the disk, where the file system can."""
    for file in folder.rglob("*"):
        place = fresh / file.relative_to(folder)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not _is_rewritten(file) and file.name != MANIFEST:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:
                shutil.copy2(file, place)


def _write_settings(model: Any, tokenizer: Tokenizer, folder: Path, fresh: Path) -> None:
    """Configuration, generation_config and code, as an export of today writes them."""
    before = read_json(folder / CONFIG, fix="Export it again")
    for name in ("architectures", "dtype"):  # the weights as they are stored
        setattr(model.config, name, before.get(name))
    if model.config.model_type == "tallyformer":
        model.config.auto_map = auto_map()
        custom_object_save(model, fresh, config=model.config)
    model.config.save_pretrained(fresh)
    careful_generation_config(eot_id=tokenizer.eot_id, pad_id=tokenizer.pad_id).save_pretrained(
        fresh
    )
    mode = (folder / CONFIG).stat().st_mode
    for file in fresh.iterdir():
        if _is_rewritten(file):
            file.chmod(mode)


def _differing(folder: Path, fresh: Path) -> list[str]:
    """Names of files that are new, gone or other than before; the manifest apart."""
    names = {file.name for place in (folder, fresh) for file in place.iterdir() if file.is_file()}
    return sorted(
        name for name in names - {MANIFEST} if not _same_bytes(folder / name, fresh / name)
    )


def _same_bytes(first: Path, second: Path) -> bool:
    if not (first.exists() and second.exists()):
        return False
    return first.samefile(second) or first.read_bytes() == second.read_bytes()


def _check_same(model: Any, fresh: Path) -> None:
    """The new folder, loaded by a process that knows nothing else, gives the old one's logits."""
    ids_BT = probe_ids(model.config.vocab_size, model.config.max_position_embeddings)
    own = own_logits(model, ids_BT)
    difference = largest_difference(fresh_logits(fresh, ids_BT), own)
    if not difference <= SAME_WEIGHTS * max(1.0, float(own.abs().max())):
        raise ArtifactError(
            f"{fresh}: its logits differ by {difference:.2g} from those of the weights; the folder "
            f"is left as it was. Check the installed versions with: {doctor()}"
        )


def _listed(manifest: Manifest, place: Path, below: str) -> list[Path]:
    """What the manifest lists now: as before, but the files of the model's folder as they are."""
    others = [Path(name) for name in manifest.files if not name.startswith(below)]
    folder = place / below
    return [
        *([] if not below else others),
        *(f.relative_to(place) for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST),
    ]


def _resign_run(stage: Path, manifest: Manifest, files: list[Path]) -> None:
    """Sign a stage again, and the finished later stages of its run, which record its result."""
    fresh = resigned(stage, manifest, files)
    changed = [(stage, fresh)]
    results = {manifest.result: fresh.result}
    run = RunFolder(stage.parent)
    if manifest.stage in STAGES and run.stage(manifest.stage) == stage:
        for later in STAGES[STAGES.index(manifest.stage) + 1 :]:
            if not run.is_finished(later):
                continue
            before = read_manifest(run.stage(later), made_by=run.command(later))
            if before.format != FORMAT:
                continue
            after = rebound(before, results)
            if after != before:
                results[before.result] = after.result
                changed.append((run.stage(later), after))
    # From the last to the first: a cut-off refresh, given again, finds what is left to do.
    for folder, signed in reversed(changed):
        write_signed(folder, signed)
