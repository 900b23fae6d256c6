"""A size in config.json that no model has is named in one line, before memory is taken for it."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tallyformer.errors import ArtifactError
from tallyformer.inference.llm import LLM

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "max_position_embeddings",
    "vocab_size",
    "intermediate_size",
    "num_attention_heads",
)


@pytest.fixture
def folder(tally_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tally_folder, tmp_path / "damaged")


def _write(folder: Path, name: str, value: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: value}))


@pytest.mark.parametrize("value", [2**31, 2**32 + 32, 10**30])
@pytest.mark.parametrize("name", _SIZES)
def test_a_size_that_no_model_has_is_named_by_either_runner(
    folder: Path, name: str, value: int
) -> None:
    _write(folder, name, value)
    for runner in (None, "native", "torch"):
        with pytest.raises(ArtifactError, match=f"config.json: {name}: {value}") as caught:
            LLM.from_pretrained(folder, device="cpu", runner=runner)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def _with_little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


def test_the_command_says_so_in_one_line(folder: Path) -> None:
    _write(folder, "num_hidden_layers", 10**9)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tallyformer.cli.main",
            "generate",
            "--model",
            str(folder),
            "--prompt",
            "A",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=_with_little_memory,
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1 and "num_hidden_layers" in done.stderr
