"""The snippets of docs/api.md and docs/api-examples.md run as they stand, but for the address."""

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

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "api.md").read_text(encoding="utf-8")
EXAMPLES = (DOCS / "api-examples.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
ERROR = '"error":{'
WAY = {"bash": ["bash", "-c"], "python": [sys.executable, "-c"], "javascript": ["node", "-e"]}
SNIPPETS = [
    (language, text)
    for language, text in re.findall(
        r"```(bash|python|javascript)\n(.*?)```", PAGE + EXAMPLES, re.DOTALL
    )
    if ADDRESS in text and "..." not in text
]


@pytest.fixture(scope="module")
def sft(tally_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:  # noqa: F811
    database = tmp_path_factory.mktemp("feedback") / "feedback.db"
    settings = ServerSettings(models={"sft": tally_folder}, feedback=f"sqlite:///{database}")
    with running(settings) as server:
        server.wait_until_ready()
        yield server


def test_every_task_is_shown_in_every_language() -> None:
    asking = PAGE.partition("## Ask")[2].partition("## Endpoints")[0]
    tasks = [asking, *EXAMPLES.split("\n## ")[1:]]
    assert len(tasks) > 5
    for task in tasks:
        assert set(re.findall(r"```(\w+)\n", task)) == set(WAY), task[:40]


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
        if done.returncode == 0 and done.stdout.strip() and ERROR not in done.stdout:
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert ERROR not in done.stdout, done.stdout
    if language == "bash" and not done.stdout.startswith("id: "):
        json.loads(done.stdout)


def test_every_path_of_the_page_is_one_that_is_served(sft: Running) -> None:
    table = PAGE.partition("## Endpoints")[2].partition("## What")[0]
    named = {path.rstrip("`") for path in re.findall(r"`(?:GET |POST )?(/[\w/{}-]+)`", table)}
    paths = {route.path for route in sft.app.router.routes} - PAGE_PATHS
    served = {path.replace(":path", "") for path in paths}
    assert named == served - {"/openapi.json", "/v1/feedback/{answer_id}"}
