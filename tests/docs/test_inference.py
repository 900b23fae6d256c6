"""The snippets of docs/inference.md run as they stand, one after another."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import write_tiny_model

_CHECKS = """
assert all(c in "0123456789" for c in llm.generate("Of", number)[0].text)
assert llm.generate("Of", priced)[0].text.startswith("{")
"""
PAGE = Path(__file__).parents[2] / "docs" / "inference.md"


def test_the_snippets_of_the_page_run_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    folder = tmp_path / "runs/quickstart/model"
    write_tiny_model(folder)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) > 3
    # Of the third at the latest are the masks.
    script = "\n".join([*snippets[:3], _CHECKS, *snippets[3:], "assert isinstance(pieces, dict)"])
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
