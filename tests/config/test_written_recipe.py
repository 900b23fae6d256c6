"""A run's own recipe is refused when it has changed, unless its first line is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallyformer.config import check_recipe, load_recipe
from tallyformer.errors import ConfigError
from tallyformer.stages.run import write_recipe

RECIPE = {
    "name": "tiny",
    "prepare": {"sources": [{"name": "a", "paths": ["a.txt"]}]},
    "model": {"preset": "tally-51m"},
    "pretrain": {"steps": 100},
}


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    recipe = check_recipe(RECIPE, "tiny")
    write_recipe(recipe, file)
    assert load_recipe(file) == recipe
    whole = file.read_bytes()
    at = whole.index(b"steps: 100") + len(b"steps: 10")
    for place in (at, *range(0, len(whole), 131)):
        data = bytearray(whole)
        data[place] ^= 1
        file.write_bytes(data)
        try:
            assert load_recipe(file) == recipe
        except ConfigError as error:
            assert "\n" not in str(error)
            continue
        assert place != at


def test_a_change_on_purpose_is_told_how(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    write_recipe(check_recipe(RECIPE, "tiny"), file)
    changed = file.read_text(encoding="utf-8").replace("steps: 100", "steps: 200")
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(ConfigError, match="If the change is yours, remove its first line"):
        load_recipe(file)
    file.write_text(changed.partition("\n")[2], encoding="utf-8")
    assert load_recipe(file).pretrain.steps == 200
