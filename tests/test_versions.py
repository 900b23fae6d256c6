"""The versions that are promised, pinned and tested are the same ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
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
    pinned = (line.lower().split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pinned}


def test_every_pinned_version_is_one_that_the_package_asks_for(script: ModuleType) -> None:
    for requirement in map(Requirement, script.asked_packages()):
        pinned = _lock()[canonicalize_name(requirement.name)]
        assert Version(pinned) in requirement.specifier, requirement


def test_the_lowest_end_has_the_lowest_admitted_versions(script: ModuleType) -> None:
    lines = script.constraints("lowest", [])
    for name in script.PACKAGES:
        [pinned] = [line for line in lines if line.startswith(f"{name}==")]
        assert Version(pinned.partition("==")[2]) < Version(_lock()[name])


def test_the_newest_end_leaves_the_tested_packages_free_and_pins_the_rest(
    script: ModuleType,
) -> None:
    lines = script.constraints("newest", ["torch"])
    names = {canonicalize_name(line.partition("==")[0]) for line in lines}
    free = {*script.PACKAGES, script.FOLLOWING["transformers"]} - {"torch"}
    assert set(_lock()) - names == set(map(canonicalize_name, free))
