"""The page's own checks: types, imports, pure code, the built copy, and flows in a real browser.

They need Node.js with web/node_modules, which `make test` installs where Node.js is there; without
it they are skipped, except where CI is set.
"""

from __future__ import annotations

import filecmp
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.config import Recipe
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
BUILT = ROOT / "src/tallyformer/server/page"
INDEX = "index.html"
FIRST_LOAD = 250_000
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
HANG = 1800
"""Seconds after which a check is taken to hang; all flows take minutes, on a busy machine many."""

needs_node = pytest.mark.skipif(
    "CI" not in os.environ and not (WEB / "node_modules").is_dir(),
    reason="needs Node.js and web/node_modules: make test",
)
needs_browser = pytest.mark.skipif(
    "CI" not in os.environ and CHROMIUM is None, reason="needs Chromium"
)


def _npx(*command: str, **environment: str) -> str:
    done = subprocess.run(
        ["npx", "--no-install", *command],
        cwd=WEB,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_node
@pytest.mark.parametrize("project", ["tsconfig.json", "tsconfig.node.json"])
def test_types_are_right(project: str) -> None:
    _npx("tsc", "--noEmit", "--project", project)


@needs_node
def test_style_and_directions_of_imports_are_right() -> None:
    _npx("eslint", ".", "--max-warnings", "0")


@needs_node
@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("src/store/broken.ts", 'export { App } from "../app/App";'),
        ("src/features/chat/broken.ts", 'export { Sidebar } from "../history/Sidebar";'),
    ],
)
def test_an_import_against_the_direction_is_found(file: str, line: str) -> None:
    assert "boundaries/" in _linted(file, line)


LITERALS = (
    "export const A = () => <p>Hello</p>;",
    'export const B = () => <p>{"Hello"}</p>;',
    'export const C = ({ n }: { n: number }) => <p>{n > 1 ? "many" : n}</p>;',
    'export const D = () => <button aria-label="Close" />;',
    "export const E = ({ n }: { n: string }) => <button title={`Close ${n}`} />;",
    'export const F = () => notify({ text: "Copied" });',
    'export const G = () => forkAt(leaf, "(fork)");',
    'export const H = "An English sentence";',
)


@needs_node
def test_a_text_outside_of_the_strings_file_is_found() -> None:
    found = _linted("src/parts/broken.tsx", "\n".join(LITERALS))
    lines = re.findall(r"^ +(\d+):\d+ .*src/lib/strings\.ts", found, flags=re.MULTILINE)
    assert sorted({int(line) for line in lines}) == list(range(1, len(LITERALS) + 1)), found


def _linted(file: str, line: str) -> str:
    """What eslint says of a line, given on standard input, so that no other check sees a file."""
    done = subprocess.run(
        ["npx", "--no-install", "eslint", "--stdin", "--stdin-filename", file],
        cwd=WEB,
        input=line + "\n",
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@needs_node
def test_pure_code() -> None:
    _npx("vitest", "run")


@needs_node
def test_the_shipped_page_is_built_from_these_sources(tmp_path: Path) -> None:
    _npx("vite", "build", PAGE_OUT=str(tmp_path / "page"))
    fresh = sorted(p.relative_to(tmp_path / "page") for p in (tmp_path / "page").rglob("*"))
    shipped = sorted(p.relative_to(BUILT) for p in BUILT.rglob("*"))
    assert fresh == shipped, "stale: run make web"
    names = [str(p) for p in fresh if (BUILT / p).is_file()]
    _, different, failed = filecmp.cmpfiles(tmp_path / "page", BUILT, names, shallow=False)
    assert different + failed == [], "stale: run make web"


@needs_node
def test_types_of_requests_are_those_of_the_server(tmp_path: Path) -> None:
    schema = subprocess.run(
        [sys.executable, ROOT / "scripts/page_schema.py"], capture_output=True, check=True
    ).stdout
    (tmp_path / "openapi.json").write_bytes(schema)
    made = tmp_path / "schema.ts"
    _npx(
        "openapi-typescript",
        str(tmp_path / "openapi.json"),
        "--default-non-nullable=false",
        "--output",
        str(made),
    )
    assert made.read_text() == (WEB / "src/api/schema.ts").read_text(), "stale: make web-schema"


def _fetched_at_the_start() -> set[str]:
    """What index.html names, and what its script asks for once the first frame is drawn."""
    index = (BUILT / INDEX).read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="/([^"]+)"', index))
    scripts = [name for name in named if name.startswith("assets/") and name.endswith(".js")]
    asked = {
        found
        for script in scripts
        for found in re.findall(r"assets/[\w-]+\.js", (BUILT / script).read_text(encoding="utf-8"))
    }
    return {INDEX, *named, *asked}


def test_the_first_load_is_small() -> None:
    """What the browser fetches before the page can be used, compressed as it is sent."""
    sizes = {
        name: len(gzip.compress((BUILT / name).read_bytes())) for name in _fetched_at_the_start()
    }
    assert any("react-" in name for name in sizes), "the largest library is part of it"
    assert sum(sizes.values()) <= FIRST_LOAD, sizes


def test_the_built_page_names_no_other_host() -> None:
    """But for names of formats, and addresses in messages of libraries, which nothing fetches."""
    index = (BUILT / "index.html").read_text(encoding="utf-8")
    assert "//" not in index
    for style in BUILT.rglob("*.css"):
        assert "url(" not in style.read_text() and "@import" not in style.read_text()


def test_the_lock_names_no_registry_and_binds_every_package() -> None:
    text = (WEB / "package-lock.json").read_text(encoding="utf-8")
    for path, package in json.loads(text)["packages"].items():
        assert "resolved" not in package, path
        assert path == "" or package["integrity"].startswith("sha512-"), path


def _model(folder: Path) -> Path:
    """A small random model that never ends an answer by itself, nor soon reaches its limit."""
    tokenizer = Tokenizer.train(["What is a bond? A bond pays interest. Prices rise."], 291)
    torch.manual_seed(0)
    model = TallyFormerForCausalLM(
        TallyFormerConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=256,
            initializer_range=0.4,
            bos_token_id=tokenizer.eot_id,
            eos_token_id=tokenizer.eot_id,
            pad_token_id=tokenizer.pad_id,
        )
    )
    with torch.no_grad():
        # The logits of what ends an answer are 0 then, and the greatest one is above that.
        model.get_input_embeddings().weight[sorted(tokenizer.control_ids)] = 0
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@needs_node
@needs_browser
@pytest.mark.filterwarnings("default:a flow failed")
def test_flows_in_a_browser(tmp_path: Path, tiny: tuple[Recipe, RunFolder]) -> None:
    """Each flow against a real server with a tiny model; what needed a second try is named."""
    printed = _npx(
        "playwright",
        "test",
        CHROMIUM=CHROMIUM or "/usr/bin/chromium",
        OMP_NUM_THREADS="1",
        PAGE_MODEL=str(_model(tmp_path / "model")),
        PAGE_RUN=str(tiny[1].path),
        PAGE_RESULTS=str(tmp_path / "results"),
        TALLYFORMER=str(Path(sys.executable).with_name("tallyformer")),
    )
    if flaky := re.search(r"^ +\d+ flaky$.*", printed, re.MULTILINE | re.DOTALL):
        warnings.warn(f"a flow failed, and passed when repeated:\n{flaky.group()}", stacklevel=1)
