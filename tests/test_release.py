"""The version stands in one place, its changes are told, and the workflows name what is here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import tallyformer

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> Any:
    return _script("release_notes")


def test_the_version_is_written_once(script: Any) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found = tomllib.load(file)
    assert "version" not in found["project"]
    assert found["project"]["dynamic"] == ["version"]
    assert found["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "tallyformer.__version__"}
    assert script.version() == tallyformer.__version__
    assert importlib.metadata.version("tallyformer") == tallyformer.__version__
    # The page is a part of the package and has no version of its own.
    assert json.loads((ROOT / "web/package.json").read_text())["version"] == "0.0.0"


def test_the_changelog_begins_with_the_version(script: Any) -> None:
    found = script.sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert next(iter(found)) == tallyformer.__version__
    assert all(text for _, text in found.values())


def test_only_the_version_with_a_dated_section_can_be_released(script: Any, tmp_path: Path) -> None:
    package = tmp_path / "src" / "tallyformer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    log = tmp_path / "CHANGELOG.md"

    def refusal(tag: str) -> str:
        with pytest.raises(SystemExit) as refused:
            script.notes(tag, tmp_path)
        return str(refused.value)

    log.write_text("# Changelog\n\n## [1.2.2] - 2026-01-01\n\nold\n")
    assert "the package is 1.2.3" in refusal("v1.2.2")
    assert "no section [1.2.3]" in refusal("v1.2.3")
    log.write_text("# C\n\n## [1.2.3] - Unreleased\n\nnew\n\n## [1.2.2] - 2026-01-01\n\nold\n")
    assert "dated Unreleased" in refusal("v1.2.3")
    log.write_text(log.read_text().replace("Unreleased", "2026-02-01"))
    assert script.notes("v1.2.3", tmp_path) == "new"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_write_only_where_it_says_and_names_versions(workflow: Path) -> None:
    found = yaml.safe_load(workflow.read_text())
    assert found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        for step in job.get("steps", ()):
            uses = step.get("uses")
            assert uses is None or re.fullmatch(r"[\w.-]+/[\w./-]+@(v\d+|[0-9a-f]{40})", uses)
            # What a tag's name holds is data, not a command.
            assert "${{ github." not in step.get("run", "")


def test_what_the_release_builds_is_here() -> None:
    text = (ROOT / ".github/workflows/release.yaml").read_text()
    for path in re.findall(r"(?:scripts|deploy|\.github)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path


def test_nothing_is_pushed_or_published_before_the_tests_have_passed() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())["jobs"]

    def before(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct))

    assert {"run": "make test"} in jobs["tests"]["steps"]
    assert jobs["deployment"]["uses"] == "./.github/workflows/deployment.yaml"
    for name, job in jobs.items():
        if "write" in job.get("permissions", {}).values():
            assert {"tests", "deployment", "wheels"} <= before(name), name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_that_another_uses_can_be_called(workflow: Path) -> None:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        if path := job.get("uses"):
            # YAML 1.1 reads the key `on` as true.
            assert "workflow_call" in yaml.safe_load((ROOT / path).read_text())[True]


def test_every_attested_bill_of_materials_is_made_checked_and_released() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())
    steps = release["jobs"]["publish"]["steps"]
    bills = [step["with"]["sbom-path"] for step in steps if "attest-sbom" in step.get("uses", "")]
    assert bills == ["tallyformer.cdx.json", "page.cdx.json"]
    [made] = [step["run"] for step in steps if step.get("name") == "Bills of materials"]
    [released] = [step["run"] for step in steps if "gh release create" in step.get("run", "")]
    assert "scripts/wheel_sbom.py wheels/*x86_64.whl tallyformer.cdx.json" in made
    assert "jq --exit-status" in made
    assert all(bill in released for bill in bills)


def test_a_bill_that_lacks_a_locked_package_or_names_another_version_is_refused() -> None:
    check = _script("wheel_sbom").lacking
    lock = (
        "# made by a tool\n"
        "pydantic-core==2.50.4 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:cc\n"
        "click==8.5.1 \\\n    --hash=sha256:dd\n"
    )
    named = {"tallyformer": "0.1.0", "pydantic_core": "2.50.4", "click": "8.5.1"}

    def bill(**versions: str) -> dict[str, Any]:
        return {"components": [{"name": n, "version": v} for n, v in versions.items()]}

    assert check(bill(**named), lock) == []
    assert check(bill(**{**named, "click": "8.5.0"}), lock) == ["click==8.5.1"]
    assert check({}, lock) == ["tallyformer", "pydantic-core==2.50.4", "click==8.5.1"]
    locked = (ROOT / "deploy/api.lock").read_text()
    assert len(check({}, locked)) > 30


def test_actionlint_finds_nothing() -> None:
    if not shutil.which("actionlint"):
        pytest.skip("needs actionlint")
    done = subprocess.run(["actionlint", *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
