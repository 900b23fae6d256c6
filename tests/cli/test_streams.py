"""Streams that are closed, or whose encoding lacks a character; names that are not text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.atomic import write_json

from .printed import ENVIRONMENT

SCRIPT = str(Path(sys.executable).with_name("tallyformer"))
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}


def test_what_a_terminal_cannot_show_is_printed_as_an_escape(
    recipe: Path, tallyformer: Any
) -> None:
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text + 'description: "5 €"\n', encoding="utf-8")
    done = tallyformer("config", "show", "--recipe", recipe, env=LATIN_1)
    assert done.returncode == 0, done.stderr
    assert r"description: 5 \u20ac" in done.stdout
    missing = tallyformer("config", "show", "--recipe", "€.yaml", env=LATIN_1)
    assert missing.returncode == 2 and missing.stderr.startswith("error: \\u20ac.yaml: no such")


def test_an_argument_that_is_no_text_is_refused_before_any_work(tmp_path: Path) -> None:
    odd = b"caf\xe9"
    (tmp_path / os.fsdecode(odd)).mkdir()
    for arguments in (
        [b"run", b"--recipe", odd],
        [b"prepare", b"--recipe", b"x.yaml", b"--out", odd],
        [b"generate", b"--model", b"m", b"--prompt", odd],
        [b"chat", b"--model", odd],
        [b"report", odd],
        [b"import-reference", odd, b"out"],
        [b"doctor", b"--out", odd],
    ):
        done = subprocess.run([SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith(r"error: the argument 'caf\udce9' is not UTF-8 text.")
        assert done.stderr.count("\n") == 1 and not done.stdout


def test_a_run_is_not_begun_in_a_folder_whose_name_is_no_text(recipe: Path, tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    place.mkdir()
    command = [SCRIPT, "tokenizer", "--recipe", str(recipe)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 2 and r"caf\udce9" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not list(place.iterdir())


def test_names_of_files_that_are_no_text_are_written_losslessly(tmp_path: Path) -> None:
    names = {os.fsdecode(b"caf\xe9.txt"): "é"}
    write_json(tmp_path / "names.json", names)
    assert json.loads((tmp_path / "names.json").read_text(encoding="utf-8")) == names


def test_a_source_may_hold_files_of_any_name(recipe: Path, tallyformer: Any) -> None:
    texts = recipe.parent / "texts"
    (texts / "03.txt").rename(texts / os.fsdecode(b"caf\xe9.txt"))
    done = tallyformer("prepare", "--recipe", recipe, "--out", recipe.parent / "out")
    assert done.returncode == 0, done.stderr
    files = json.loads((recipe.parent / "out" / "prepare" / "files.json").read_text())["texts"]
    assert any(os.fsencode(name).endswith(b"caf\xe9.txt") for name in files)


@pytest.mark.parametrize("command", [["config", "show"], ["generate", "--prompt", "A bond"]])
def test_a_reader_that_goes_away_ends_a_command_quietly(
    command: list[str], recipe: Path, model_folder: Path
) -> None:
    options = ["--recipe", recipe] if command[0] == "config" else ["--model", model_folder]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [SCRIPT, *command, *options], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_training_whose_messages_nobody_reads_any_more_saves_and_ends(
    recipe: Path, tallyformer: Any
) -> None:
    """As one whose terminal is closed; with a full disk behind the messages, it continues."""
    out = recipe.parent / "out"
    assert tallyformer("prepare", "--recipe", recipe, "--out", out).returncode == 0
    reader, writer = os.pipe()
    os.close(reader)
    command = [SCRIPT, "pretrain", "--recipe", recipe, "--out", out, "--resume"]
    done = subprocess.run(command, stderr=writer, env=ENVIRONMENT)
    os.close(writer)
    assert done.returncode == 129
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        assert subprocess.run(command, stderr=full, env=ENVIRONMENT).returncode == 0
    assert (out / "pretrain" / "manifest.json").is_file()
