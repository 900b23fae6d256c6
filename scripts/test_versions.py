"""Run the tests of model, export and inference at both ends of the versions that are admitted.

    python scripts/test_versions.py [--keep PACKAGE] [lowest] [newest]

For each end a new environment is made in build/versions/, by scripts/install.sh: `lowest` has the
lowest versions of transformers, peft, tokenizers and torch that pyproject.toml admits, `newest` the
newest that the package index has within the ranges. All other packages are those of
requirements.lock. It takes some minutes and a few gigabytes, so `make test` leaves it out; it is
run once before a release. `--keep torch` leaves torch at requirements.lock's version, where the
index has no small build of another.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "versions"
PACKAGES = ("transformers", "peft", "tokenizers", "torch")
FOLLOWING = {"transformers": "huggingface_hub", "torch": "setuptools"}
"""Packages whose version another one decides."""
TESTS = ("tests/model", "tests/export", "tests/inference")
ENDS = ("lowest", "newest")
SHOW = """
import importlib.metadata, sys
print(*[f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:]])
"""


def asked_packages() -> list[str]:
    """What pyproject.toml asks for: always, for training and for serving."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["train"], *extras["serve"]]


def lowest_versions() -> dict[str, str]:
    """The first version of each package that pyproject.toml admits."""
    asked = asked_packages()
    found = (re.match(r"([\w-]+)>=([\w.]+)", line) for line in asked)
    return {match[1]: match[2] for match in found if match and match[1] in PACKAGES}


def constraints(end: str, keep: Iterable[str]) -> list[str]:
    """Lines of a pip constraints file for one end."""
    moved = set(PACKAGES) - set(keep)
    free = moved | {FOLLOWING[name] for name in moved if name in FOLLOWING}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lock if line.partition("==")[0] not in free]
    if end == "lowest":
        lines += [
            f"{name}=={version}" for name, version in lowest_versions().items() if name in moved
        ]
    return lines


def test_end(end: str, keep: Iterable[str]) -> bool:
    """Make the environment of one end and run the tests in it; whether they pass."""
    PLACE.mkdir(parents=True, exist_ok=True)
    file, place = PLACE / f"{end}.txt", PLACE / end
    file.write_text("\n".join(constraints(end, keep)) + "\n", encoding="utf-8")
    environment = {**os.environ, "CONSTRAINTS": str(file), "PYTHON": sys.executable}
    python = str(place / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(file)]
    _run("rm", "-rf", str(place))
    _run("sh", "scripts/install.sh", str(place), env=environment)
    _run(*install, "--group", "dev")
    print(f"{end}:", flush=True)
    _run(python, "-c", SHOW, *PACKAGES)
    tests = [python, "-m", "pytest", *TESTS]
    return not subprocess.run(
        tests, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ).returncode


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    if subprocess.run(command, cwd=ROOT, env=env).returncode:
        sys.exit(f"error: {' '.join(command)} failed")


def main() -> None:
    """Test the ends that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="append", default=[], choices=PACKAGES)
    parser.add_argument("ends", nargs="*", default=list(ENDS), metavar="lowest|newest")
    given = parser.parse_args()
    if unknown := set(given.ends) - set(ENDS):
        parser.error(f"unknown end: {min(unknown)}")
    failed = [end for end in given.ends if not test_end(end, given.keep)]
    if failed:
        sys.exit(f"error: tests fail with the {' and the '.join(failed)} versions")


if __name__ == "__main__":
    main()
