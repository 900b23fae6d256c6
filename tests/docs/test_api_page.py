"""The snippets of docs/api.md run as they stand, but for the address."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallyformer.server.routes.page import PAGE_PATHS
from tallyformer.server.settings import ServerSettings

from ..inference.conftest import tally_folder, tokenizer  # noqa: F401  (fixtures)
from ..server.conftest import Running, running

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
WAY = {"bash": ["bash", "-c"], "python": [sys.executable, "-c"], "javascript": ["node", "-e"]}
SNIPPETS = [
    (language, text)
    for language, text in re.findall(r"```(bash|python|javascript)\n(.*?)```", PAGE, re.DOTALL)
    if ADDRESS in text and "..." not in text
]


@pytest.fixture(scope="module")
def sft(tally_folder: Path) -> Iterator[Running]:  # noqa: F811
    with running(ServerSettings(models={"sft": tally_folder})) as server:
        server.wait_until_ready()
        yield server


def test_every_language_has_a_snippet() -> None:
    assert {language for language, _ in SNIPPETS} == set(WAY)


@pytest.mark.parametrize(("language", "text"), SNIPPETS)
def test_a_snippet_runs_and_prints_an_answer(sft: Running, language: str, text: str) -> None:
    *way, flag = WAY[language]
    if shutil.which(way[0]) is None or ("curl" in text and shutil.which("curl") is None):
        pytest.skip(f"{language}: not on this machine")
    arguments = ["--input-type=module"] if language == "javascript" else []
    command = [*way, *arguments, flag, text.replace(ADDRESS, sft.url)]
    # A tiny random model may well say nothing, but not five times.
    for _ in range(5):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        if done.stdout.strip():
            break
    assert done.stdout.strip()
    if language == "bash":
        assert "error" not in json.loads(done.stdout)


def test_every_path_of_the_page_is_one_that_is_served(sft: Running) -> None:
    table = PAGE.partition("## Endpoints")[2].partition("## What")[0]
    named = {path.rstrip("`") for path in re.findall(r"`(?:GET |POST )?(/[\w/{}-]+)`", table)}
    below = {"/v1/feedback"}  # served where the settings name a database
    paths = {route.path for route in sft.app.router.routes} - PAGE_PATHS
    served = below | {path.replace(":path", "") for path in paths}
    assert named == served - {"/openapi.json"}
