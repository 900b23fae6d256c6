"""What a run reads from the hub is what was there at its first start, on a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyformer.artifacts.json_files import read_checked_json
from tallyformer.tokenizer import Tokenizer

from ..fake_hub import FakeHub, fake_hub

pytest.importorskip("datasets")
COMMAND = Path(sys.executable).with_name("tallyformer")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as served:
        yield served


def rows(word: str) -> dict[str, bytes]:
    texts = [f"The {word} bond number {n} pays {n * 7} dollars of interest." for n in range(80)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    return {"data/train-0.jsonl": lines.encode(), "README.md": b"# Bonds"}


def recipe(folder: Path, **changes: Any) -> Path:
    tree = {
        "name": "hub",
        "model": {"max_position_embeddings": 32},
        "tokenizer": {"kind": "train", "vocab_size": 280},
        "prepare": {"min_chars": 1, "workers": 1, "sources": [{"name": "s", "dataset": "x/bonds"}]},
        "pretrain": {"steps": 1},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def run(hub: FakeHub, stage: str, path: Path, **environment: str) -> None:
    done = subprocess.run(
        [COMMAND, stage, "--recipe", path, "--out", path.parent / "run"],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(path.parent / "home"),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def shards(folder: Path) -> str:
    import numpy as np

    tokenizer = Tokenizer.from_pretrained(folder / "run/tokenizer")
    ids = np.fromfile(folder / "run/prepare/train/s/00000.bin", dtype="<u2")
    return tokenizer.decode(ids.tolist())


def test_a_data_set_that_changes_during_a_run_is_read_as_it_was(
    hub: FakeHub, tmp_path: Path
) -> None:
    path = recipe(tmp_path)
    first = hub.push("datasets/x/bonds", rows("first"))
    run(hub, "tokenizer", path)
    hub.push("datasets/x/bonds", rows("second"))
    run(hub, "prepare", path)
    text = shards(tmp_path)
    assert "The first bond" in text and "second" not in text
    record = read_checked_json(tmp_path / "run/hub.json", fix="")
    assert record == {"dataset x/bonds": first}
    manifest = json.loads((tmp_path / "run/prepare/manifest.json").read_text())
    assert first in manifest["inputs"]["s/x/bonds/train"]
    assert manifest["config"]["sources"][0]["revision"] == first
    asked = len(hub.asked)
    run(hub, "prepare", path)  # finished: nothing is asked for
    assert len(hub.asked) == asked


def test_a_tokenizer_that_changes_during_a_run_is_the_first_one(
    hub: FakeHub, tmp_path: Path
) -> None:
    def tokenizer(text: str) -> dict[str, bytes]:
        folder = tmp_path / text[:5]
        Tokenizer.train([text * 20], 262).save(folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    tokenizers = {"kind": "pretrained", "source": "x/words", "revision": "main"}
    texts = {"sources": [{"name": "s", "dataset": "x/bonds"}], "min_chars": 1, "workers": 1}
    path = recipe(tmp_path, tokenizer=tokenizers, prepare=texts)
    hub.push("datasets/x/bonds", rows("first"))
    first = hub.push("models/x/words", tokenizer("bonds and shares"))
    run(hub, "tokenizer", path)
    expected = Tokenizer.from_pretrained(tmp_path / "run/tokenizer").fingerprint
    hub.push("models/x/words", tokenizer("loans and grants"))
    run(hub, "tokenizer", path)
    assert Tokenizer.from_pretrained(tmp_path / "run/tokenizer").fingerprint == expected
    assert read_checked_json(tmp_path / "run/hub.json", fix="") == {"model x/words@main": first}
