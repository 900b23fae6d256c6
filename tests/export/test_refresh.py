"""A folder that was exported earlier is repaired in place, or left as it was."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.artifacts.lock import alone_in, alone_with
from tallyformer.artifacts.manifest import MANIFEST, rebound, resign
from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.cli.export import export as command
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError
from tallyformer.export.refresh import refresh_folder
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.stages import export, pretrain

OLD_SETTINGS = {"bos_token_id": 1, "eos_token_id": 1, "max_length": 32}
OLD_CODE = "raise RuntimeError('code of an earlier day')\n"


@pytest.fixture
def run(finished: tuple[Recipe, RunFolder], tmp_path: Path) -> RunFolder:
    """The run as an earlier version would have left it: other code, other settings, signed."""
    made = RunFolder(Path(shutil.copytree(finished[1].path, tmp_path / "run")))
    results: dict[str, str] = {}
    for stage, folder in (("pretrain", "best"), ("export", "")):
        place, manifest = made.stage(stage) / folder, made.manifest(stage)
        (place / "attention.py").write_text(OLD_CODE, encoding="utf-8")
        (place / "protocol.py").unlink()
        (place / "generation_config.json").write_text(json.dumps(OLD_SETTINGS), encoding="utf-8")
        files = [Path(n) for n in manifest.files if not n.endswith("protocol.py")]
        signed = resign(made.stage(stage), rebound(manifest, results), files)
        results[manifest.result] = signed.result
    return made


@pytest.mark.parametrize("place", ["model", "pretrain/best"])
def test_a_run_in_which_somebody_works_is_not_refreshed(place: str, run: RunFolder) -> None:
    (run.path / "recipe.yaml").touch()
    before = (run.path / place / "attention.py").read_bytes()
    refused = pytest.raises(ArtifactError, match=f"{run.path}: another tallyformer process")
    with alone_in(run.path), refused:
        refresh_folder(run.path / place)
    assert (run.path / place / "attention.py").read_bytes() == before
    assert refresh_folder(run.path / place)


def test_while_a_folder_is_refreshed_nobody_else_can_work_in_its_run(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.path / "recipe.yaml").touch()

    def look(*_: Any) -> None:
        with pytest.raises(ArtifactError, match="another tallyformer process"), alone_in(run.path):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr("tallyformer.export.refresh._copy", look)
    with pytest.raises(KeyboardInterrupt):
        refresh_folder(run.path / "model")
    with alone_in(run.path):
        pass


def test_a_copy_of_a_folder_waits_for_another_refresh_beside_it(
    run: RunFolder, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run.path / "model", tmp_path / "alone" / "copy"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with alone_with(copy):
            waiting = pool.submit(refresh_folder, copy)
            assert concurrent.futures.wait([waiting], timeout=0.5).not_done
        assert waiting.result(timeout=300)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("place", ["model", "pretrain/best"])
def test_a_refreshed_folder_has_todays_files_and_its_own_weights(
    place: str, run: RunFolder, finished: tuple[Recipe, RunFolder]
) -> None:
    folder, wanted = run.path / place, finished[1].path / place
    before = _weights(folder)
    assert refresh_folder(folder) == ["attention.py", "generation_config.json", "protocol.py"]
    assert _weights(folder) == before
    names = {file.name for file in wanted.iterdir()}
    assert {file.name for file in folder.iterdir()} == names
    for name in names - {MANIFEST, "README.md"}:
        assert (folder / name).read_bytes() == (wanted / name).read_bytes(), name
    check_model_folder(folder)
    careful = SamplingParams(temperature=0.3, top_k=20, top_p=0.9)
    assert LLM.from_pretrained(folder, device="cpu").default_params == careful
    assert refresh_folder(folder) == []


def test_a_refreshed_run_is_still_finished(
    run: RunFolder, finished: tuple[Recipe, RunFolder]
) -> None:
    """Later stages record what they read, and are signed again with it."""
    results = [run.manifest(stage).result for stage in ("pretrain", "export")]
    refresh_folder(run.path / "pretrain" / "best")
    again = [run.manifest(stage, check=True).result for stage in ("pretrain", "export")]
    assert again[0] != results[0] and again[1] != results[1]
    assert run.manifest("export").inputs["pretrain"] == again[0]
    recipe = finished[0]
    for stage in (pretrain, export):
        assert stage.run(recipe, run).result in again


def test_a_copy_without_its_manifest_is_refreshed(run: RunFolder, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path / "pretrain" / "best", tmp_path / "copy"))
    assert "attention.py" in refresh_folder(copy)
    assert not (copy / MANIFEST).exists()


def test_a_refresh_that_was_cut_off_goes_on(run: RunFolder) -> None:
    """Killed between the folder and its manifest, the files differ from what is signed."""
    folder = run.path / "pretrain" / "best"
    signed = (run.path / "pretrain" / MANIFEST).read_bytes()
    refresh_folder(folder)
    (run.path / "pretrain" / MANIFEST).write_bytes(signed)
    assert refresh_folder(folder) == []
    check_model_folder(folder)


def test_damaged_weights_are_not_signed(run: RunFolder) -> None:
    folder = run.path / "model"
    data = bytearray(_weights(folder))
    data[-1] ^= 64
    (folder / "model.safetensors").write_bytes(data)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ArtifactError, match="checksum differs"):
        refresh_folder(folder)
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    for folder, message in (
        (tmp_path / "llama", "TallyFormer did not write it"),
        (tmp_path / "none", "no such folder"),
        (tmp_path, "config.json: missing"),
    ):
        with pytest.raises(ArtifactError, match=message) as caught:
            refresh_folder(folder)
        assert "\n" not in str(caught.value)


def test_the_command_needs_no_recipe_and_takes_a_folder_alone(run: RunFolder) -> None:
    def invoke(*arguments: Any) -> Any:
        return CliRunner().invoke(command, [str(a) for a in arguments])

    folder = run.path / "model"
    done = invoke("--refresh", folder)
    assert done.exit_code == 0, done.output
    assert "attention.py, generation_config.json, protocol.py rewritten" in done.output
    assert "nothing rewritten" in invoke("--refresh", folder).output
    assert invoke("--refresh", folder, "--out", "x").exit_code == 2
    assert "give --recipe FILE, --format with FOLDER and OUT, or --refresh" in invoke().output
