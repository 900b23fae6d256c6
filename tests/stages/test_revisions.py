"""A hub name with a revision is that state of it, read from a cache as the hub client keeps it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import check_recipe
from tallyformer.errors import ConfigError, TokenizerError
from tallyformer.preflight.inputs import check_inputs
from tallyformer.runs.teacher import teacher_fingerprint
from tallyformer.tokenizer import Tokenizer

READ = """
import json, sys, torch
from pathlib import Path
from tallyformer.errors import TokenizerError
from tallyformer.runs.teacher import load_teacher_model, shared_ids
from tallyformer.tokenizer import Tokenizer
student = Path(sys.argv[1])
found = {}
for revision in ("small", "large"):
    tokenizer = Tokenizer.from_pretrained("some/model", revision)
    model = load_teacher_model("some/model", torch.float32, 32, revision)
    try:
        ours = Tokenizer.from_pretrained(student)
        shared = shared_ids("some/model", model, student, ours, revision)
    except TokenizerError as error:
        shared = str(error)
    found[revision] = [tokenizer.vocab_size, model.config.hidden_size, shared]
print(json.dumps(found))
"""


def cached(home: Path, folder: Path, revision: str, commit: str) -> None:
    """Put a folder into the hub client's cache as one state of some/model."""
    place = home / "hub" / "models--some--model"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(commit)


def test_tokenizer_and_teacher_are_those_of_the_revision(
    pretrained: RunFolder, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    cached(home, pretrained.stage("pretrain") / "best", "small", "a" * 40)
    large = tmp_path / "large"
    shutil.copytree(pretrained.stage("teacher") / "best", large)
    Tokenizer.train(["a bond is a loan and a share is not"], 270).save(large)
    cached(home, large, "large", "b" * 40)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(pretrained.stage("tokenizer"))],
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["small"] == [300, 32, 300]
    assert found["large"][:2] == [270, 48] and "is another one; id 256" in found["large"][2]


def small(**changes: Any) -> Any:
    tree = {
        "name": "small",
        "prepare": {"sources": [{"name": "primer", "corpus": "primer"}]},
        "pretrain": {"steps": 3},
        **changes,
    }
    return check_recipe(tree, "r.yaml")


def test_the_revision_of_a_hub_teacher_is_part_of_its_fingerprint(tmp_path: Path) -> None:
    def fingerprint(**teacher: str) -> str:
        distill = {"phases": [{"steps": 1}]}
        recipe = small(teacher={"source": "some/model", **teacher}, distill=distill)
        return teacher_fingerprint(recipe, RunFolder(tmp_path))

    assert fingerprint() != fingerprint(revision="v1") != fingerprint(revision="v2")


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": {"kind": "train", "revision": "v1"}},
        {
            "teacher": {"model": {}, "train": {"steps": 1}, "revision": "v1"},
            "distill": {"phases": [{"steps": 1}]},
        },
    ],
)
def test_a_revision_of_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Remove it"):
        small(**changes)


def test_a_local_folder_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    tokenizer = {"source": "words", "revision": "v1"}
    recipe = small(data_root=str(tmp_path), tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="revision 'v1' is for a hub name"):
        check_inputs(recipe, RunFolder(tmp_path / "run"), ["tokenizer"])
    with pytest.raises(TokenizerError, match="has no revision 'v1'"):
        Tokenizer.from_pretrained(tmp_path / "words", "v1")
