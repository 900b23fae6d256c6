"""JSON is read whatever is in the file, and a checked file refuses any changed value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tallyformer.artifacts.json_files import (
    parse_json,
    read_checked_json,
    read_json,
    write_checked_json,
)
from tallyformer.errors import ArtifactError, CheckpointError

from .damage import SHAPES, damages, flipped_bits

VALUES = {"name": "naïve \U0001f40d", "nested": {"list": [1, 2.5, None, True]}, "count": 596}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_checked_json(file, VALUES)
    assert read_checked_json(file, fix="") == VALUES


def test_a_file_name_that_is_not_utf_8_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_checked_json(file, {"file": "caf\udce9.txt"})
    assert read_checked_json(file, fix="") == {"file": "caf\udce9.txt"}


@pytest.mark.parametrize(("name", "damage"), list(damages()))
def test_any_damage_is_one_line_that_names_the_file_and_the_fix(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    file = tmp_path / "x.json"
    write_checked_json(file, VALUES)
    damage(file)
    with pytest.raises(CheckpointError) as caught:
        read_checked_json(file, fix="Make it again", error=CheckpointError)
    message = str(caught.value)
    assert (message.startswith(f"{file}: ") and message.endswith("). Make it again")) or (
        name == "dangling-link" and message == f"{file}: missing. Make it again"
    )
    assert "\n" not in message and len(message) < 300


def test_a_flipped_bit_is_refused_or_changes_no_value(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_checked_json(file, VALUES)
    refused = 0
    for _ in flipped_bits(file):
        try:
            assert read_checked_json(file, fix="") == VALUES
        except ArtifactError:
            refused += 1
    assert refused > 50


def test_values_that_are_taken_out_or_put_in_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_checked_json(file, VALUES)
    whole = json.loads(file.read_text(encoding="utf-8"))
    for changed in ({**whole, "more": 1}, {k: v for k, v in whole.items() if k != "count"}):
        file.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ArtifactError, match="do not match its checksum"):
            read_checked_json(file, fix="")


@pytest.mark.parametrize("name", ["null", "list", "text", "number"])
def test_another_value_than_an_object_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(SHAPES[name])
    with pytest.raises(ArtifactError, match="where names and values belong"):
        read_json(file, fix="")


@pytest.mark.parametrize("name", ["empty", "cut", "not-utf-8", "deep-list", "huge-number"])
def test_a_text_that_is_not_json_is_a_value_error_with_a_reason(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_json(SHAPES[name])
    assert type(caught.value) is ValueError and 0 < len(str(caught.value)) < 100


def test_what_the_system_refuses_has_its_own_advice(tmp_path: Path) -> None:
    """As a missing permission has, which no test that runs as root can meet."""
    file = tmp_path / "config.json"
    file.symlink_to(file)
    with pytest.raises(ArtifactError, match="Links in the path lead in a circle"):
        read_json(file, fix="Export it again")
