"""The versions that are promised, pinned and tested are the same ones."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("versions", ROOT / "scripts/test_versions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if "==" in line)


def test_every_pinned_version_is_one_that_the_package_asks_for() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        asked = tomllib.load(file)["project"]["dependencies"]
    for requirement in map(Requirement, asked):
        pinned = _lock()[requirement.name.lower()]
        assert Version(pinned) in requirement.specifier, requirement


def test_the_lowest_end_has_the_lowest_admitted_versions(script: ModuleType) -> None:
    lines = script.constraints("lowest", [])
    for name in script.PACKAGES:
        [pinned] = [line for line in lines if line.startswith(f"{name}==")]
        assert Version(pinned.partition("==")[2]) < Version(_lock()[name])


def test_the_newest_end_leaves_the_tested_packages_free_and_pins_the_rest(
    script: ModuleType,
) -> None:
    names = {line.partition("==")[0].lower() for line in script.constraints("newest", ["torch"])}
    free = {*script.PACKAGES, script.FOLLOWING["transformers"]} - {"torch"}
    assert set(_lock()) - names == free
