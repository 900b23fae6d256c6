"""`run`, `plan` and a dry run say before they begin what their data are too small for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import RECIPE, TEXT, Run


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["plan", "--no-probe"]])
def test_the_warnings_stand_on_standard_error_before_the_result(
    tallyformer: Run, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(20):
        (tmp_path / "texts" / f"{number}.txt").write_text(TEXT.format(number) * 3)
    rows = [json.dumps({"prompt": f"What is {i}?", "response": "A number."}) for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    sft = "sft: {epochs: 1, sources: [{name: pairs, paths: [pairs.jsonl]}]}"
    recipe = tmp_path / "own.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path) + sft)
    done = tallyformer(*command, "--recipe", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "warning: pretrain: the texts hold about " in done.stderr
    assert " pairs are held out, too few to tell" in done.stderr
    assert "warning:" not in done.stdout
