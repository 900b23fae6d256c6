"""What is installed without an extra is enough to answer; what an extra has is told by its name."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tallyformer.packages import EXTRAS, how_to_get, missing

with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as _file:
    PROJECT = tomllib.load(_file)["project"]
_ALONE = """
import sys
for name in {absent!r}:
    sys.modules[name] = None  # as if it were not installed
from tallyformer.cli.main import main
main({args!r})
"""


def distributions() -> Mapping[str, set[str]]:
    """The names on the index of what installs each module."""
    found = importlib.metadata.packages_distributions()
    return {module: {_plain(name) for name in names} for module, names in found.items()}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(lines: list[str]) -> set[str]:
    return {_plain(Requirement(line).name) for line in lines}


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_the_modules_of_an_extra_are_those_of_its_packages(extra: str) -> None:
    of_module = distributions()
    # What is not installed here has the name of its module.
    installed = {
        name for module in EXTRAS[extra] for name in of_module.get(module, {_plain(module)})
    }

    assert installed == asked(PROJECT["optional-dependencies"][extra])


def test_the_command_for_a_module_names_its_extra() -> None:
    assert how_to_get("torch.nn") == "pip install 'tallyformer[train]'"
    assert how_to_get("pydantic", "serve") == "pip install 'tallyformer[serve]'"
    assert how_to_get("pydantic") == "pip install 'tallyformer[train]'"
    assert how_to_get("datasets", "serve") == "pip install 'tallyformer[hub]'"
    assert how_to_get("numpy") is None


def test_what_is_not_there_is_missing() -> None:
    assert missing("numpy", "no_such_module", "torch") == ["no_such_module"]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["run", "--recipe", "recipes/quickstart.yaml"], "train"),
        (["plan", "--recipe", "recipes/quickstart.yaml"], "train"),
        (["config", "validate", "--recipe", "recipes/quickstart.yaml"], "train"),
        (["export", "--refresh", "somewhere"], "train"),
        (["serve", "--help"], "serve"),
        (["bench", "somewhere"], "bench"),
    ],
)
def test_a_command_without_its_packages_says_in_one_line_what_to_install(
    command: list[str], extra: str
) -> None:
    absent = [module for modules in EXTRAS.values() for module in modules]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE.format(absent=absent, args=command)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: this needs ")
    assert done.stderr.endswith(f"pip install 'tallyformer[{extra}]'\n")


def test_help_and_doctor_need_no_extra() -> None:
    absent = [module for modules in EXTRAS.values() for module in modules]
    for args in (["--help"], ["--version"], ["doctor"], ["generate", "--help"], ["chat", "-h"]):
        done = subprocess.run(
            [sys.executable, "-c", _ALONE.format(absent=absent, args=args)],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
