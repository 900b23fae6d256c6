"""`deploy/api.lock` has what the API's image needs, in the versions that are tested, by hash."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "deploy/api.lock").read_text()
STALE = "Make it again: make image-lock"
EXTRAS = ("serve", "scale")
PROCESSORS = ("x86_64", "aarch64")


def _locked() -> dict[str, tuple[Requirement, list[str]]]:
    """Each package's line and hashes, by name."""
    lines = [line for line in LOCK.replace("\\\n", "").splitlines() if not line.startswith("#")]
    found = {}
    for line in lines:
        text, *hashes = re.split(r"\s+--hash=", line)
        requirement = Requirement(text)
        found[canonicalize_name(requirement.name)] = (requirement, hashes)
    return found


LOCKED = _locked()


def _environment(processor: str) -> Environment:
    environment = default_environment()
    environment["platform_machine"] = processor
    return environment


def _of_pyproject() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    for text in (*project["dependencies"], *(one for name in EXTRAS for one in optional[name])):
        yield Requirement(text)


def _needed(processor: str) -> dict[str, list[Requirement]]:
    """What is required of each package, by the project and by packages that it needs."""
    environment = _environment(processor)
    needed: dict[str, list[Requirement]] = {}
    todo = [(requirement, "") for requirement in _of_pyproject()]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        marker = requirement.marker
        if marker is not None and not marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        needed.setdefault(name, []).append(requirement)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(one, wanted) for one in _requirements_of(name)]
    return needed


def _requirements_of(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_lock_has_what_is_needed_and_nothing_else(processor: str) -> None:
    environment = _environment(processor)
    needed = _needed(processor)
    locked = {
        name
        for name, (line, _) in LOCKED.items()
        if line.marker is None or line.marker.evaluate(environment)
    }
    assert locked == set(needed), STALE
    for name, requirements in needed.items():
        (pinned,) = LOCKED[name][0].specifier
        assert pinned.operator == "=="
        assert all(one.specifier.contains(pinned.version) for one in requirements), STALE


def test_its_versions_are_those_that_are_tested() -> None:
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.startswith("#"):
            continue
        tested = Requirement(line)
        if (name := canonicalize_name(tested.name)) in LOCKED:
            assert LOCKED[name][0].specifier == tested.specifier, STALE


def test_every_package_is_bound_by_hashes_and_no_address_is_named() -> None:
    for name, (line, hashes) in LOCKED.items():
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), name
        assert line.url is None
    assert not re.search(r"://|--index|--find-links|--trusted-host", LOCK)
