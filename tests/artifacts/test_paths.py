"""What no file can be called is refused in one line by everything that takes a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallyformer.artifacts.paths import usable_path
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import load_recipe
from tallyformer.errors import TallyFormerError, UsageError
from tallyformer.export.reference import import_reference
from tallyformer.export.refresh import refresh_folder
from tallyformer.inference.llm import LLM
from tallyformer.report.page import write_report
from tallyformer.tokenizer import Tokenizer

UNUSABLE = {
    "long-name": "a" * 300,
    "long-path": "/".join(["a" * 200] * 30),
    "nul": "runs/a\0b",
    "half-a-character": "runs/\ud800",
    "line-break": "runs/a\nb",
}
TAKERS: dict[str, Callable[[Path | str], Any]] = {
    "LLM": LLM.from_pretrained,
    "Tokenizer": Tokenizer.from_pretrained,
    "load_recipe": lambda path: load_recipe(Path(path)),
    "refresh_folder": lambda path: refresh_folder(Path(path)),
    "report": lambda path: write_report([RunFolder(Path(path))], Path("report.html")),
    "report's file": lambda path: write_report([RunFolder(Path("runs"))], Path(path)),
    "import_reference": lambda path: import_reference(Path("a.pt"), Path(path)),
    "import_reference's file": lambda path: import_reference(Path(path), Path("out")),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_that_nothing_can_have_is_refused(
    taker: str, name: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TallyFormerError) as caught:
        TAKERS[taker](kind(UNUSABLE[name]))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [None, 3, b"runs", ["runs"]])
def test_what_is_no_path_is_refused(value: Any) -> None:
    for taker in (LLM.from_pretrained, Tokenizer.from_pretrained):
        with pytest.raises(UsageError, match="is not a path"):
            taker(value)


def test_whatever_may_be_there_passes(tmp_path: Path) -> None:
    """Among it bytes that are not UTF-8, which a file's name may hold."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "file/below", "link", "nothing", "a b's", "caf\udce9", "ü" * 100):
        assert usable_path(tmp_path / name) == tmp_path / name
    assert usable_path("owner/name") == Path("owner/name")
