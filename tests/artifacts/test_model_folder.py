"""A model's folder is compared with what vouches for it before anything of it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tallyformer.artifacts.json_files import write_checked_json
from tallyformer.artifacts.manifest import file_entry, resign
from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.run_folder import RunFolder, StageWork
from tallyformer.errors import ArtifactError

from .damage import damages, flipped_bits

FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md")


def signed(run: Path, stage: str, model: str) -> Path:
    """A finished stage's folder with a model in it; the model's folder."""
    work = StageWork(RunFolder(run), stage, {}, 1, {})
    work.already_done()
    folder = work.folder / model
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text(f"{name} of {stage}", encoding="utf-8")
    work.finish(metrics={}, files=[folder / name for name in FILES])
    return folder


def phase(run: Path) -> Path:
    """A phase of distillation; its model's folder."""
    folder = run / "distill" / "phase-1" / "best"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(name, encoding="utf-8")
    files = {f"best/{name}": file_entry(folder / name) for name in FILES}
    write_checked_json(folder.parent / "result.json", {"files": files})
    return folder


MAKERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "export": (lambda run: signed(run, "export", ""), "manifest.json"),
    "best": (lambda run: signed(run, "pretrain", "best"), "../manifest.json"),
    "merged": (lambda run: signed(run, "merge", "merged"), "../manifest.json"),
    "adapter": (lambda run: signed(run, "sft", "adapter"), "../manifest.json"),
    "phase": (phase, "../result.json"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_each_file_that_is_loaded_is_compared(tmp_path: Path, kind: str) -> None:
    folder = MAKERS[kind][0](tmp_path)
    check_model_folder(folder)
    for name in FILES:
        file = folder / name
        whole = file.read_bytes()
        for altered in (whole[:-1], bytes([whole[0] ^ 64]) + whole[1:], None):
            file.unlink() if altered is None else file.write_bytes(altered)
            if name == "README.md":  # a model card may be rewritten
                check_model_folder(folder)
            else:
                with pytest.raises(ArtifactError, match=str(file)):
                    check_model_folder(folder)
            file.write_bytes(whole)
    check_model_folder(folder)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(("name", "damage"), list(damages()))
def test_a_damaged_voucher_is_refused_with_the_fix(
    tmp_path: Path, kind: str, name: str, damage: Callable[[Path], None]
) -> None:
    make, voucher = MAKERS[kind]
    folder = make(tmp_path)
    damage(folder / voucher)
    with pytest.raises(ArtifactError, match="Make or fetch the folder again") as caught:
        check_model_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_a_manifest_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    folder = signed(tmp_path, "export", "")
    before = RunFolder(tmp_path).manifest("export")
    for _ in flipped_bits(folder / "manifest.json"):
        try:
            assert RunFolder(tmp_path).manifest("export") == before
        except ArtifactError:
            continue


def test_a_link_to_a_models_folder_is_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = signed(tmp_path, "pretrain", "best")
    (folder / "config.json").write_text("other", encoding="utf-8")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for path in (tmp_path / "link", Path()):
        with pytest.raises(ArtifactError, match=r"config\.json"):
            check_model_folder(path)


def test_a_folder_that_nothing_vouches_for_passes(tmp_path: Path) -> None:
    """As of another project; the file beside it belongs to something else."""
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "manifest.json").write_text("[]", encoding="utf-8")
    check_model_folder(folder)
    check_model_folder(tmp_path / "nothing")


def test_a_folder_that_was_changed_on_purpose_can_be_signed_again(tmp_path: Path) -> None:
    folder = signed(tmp_path, "export", "")
    (folder / "config.json").write_text("new", encoding="utf-8")
    (folder / "more.json").write_text("{}", encoding="utf-8")
    manifest = RunFolder(tmp_path).manifest
    with pytest.raises(ArtifactError):
        manifest("export", check=True)
    (folder / "config.json").write_text("config.json of export", encoding="utf-8")
    before = manifest("export")
    (folder / "config.json").write_text("new", encoding="utf-8")
    resign(folder, before, [folder / name for name in (*FILES, "more.json")])
    after = manifest("export", check=True)
    assert after.result != before.result and after.fingerprint == before.fingerprint
    check_model_folder(folder)
