"""What a wheel's server needs, as a CycloneDX bill of materials.

    python scripts/wheel_sbom.py dist/tallyformer-0.1.0-py3-none-any.whl tallyformer.cdx.json

The wheel is installed with the packages of deploy/api.lock into an environment of its own, and
that environment is described. Refuses a description that lacks one of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "deploy" / "api.lock"
TOOL = "cyclonedx-bom==7.5.0"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_PIN = re.compile(r"^([\w.-]+)==([\w.+!-]+) \\$", re.MULTILINE)


def described(wheel: Path) -> dict[str, Any]:
    """The bill of an environment that holds the wheel, the locked packages and nothing else."""
    with tempfile.TemporaryDirectory() as name:
        needed, tool = Path(name, "needed"), Path(name, "tool")
        for folder in (needed, tool):
            _run(sys.executable, "-m", "venv", "--without-pip", folder)
        python = needed / "bin" / "python"
        into = (*PIP, "--python", python, "install", "--quiet", "--no-deps")
        _run(*into, "--require-hashes", "--requirement", LOCK)
        _run(*into, wheel)
        _run(*PIP, "--python", tool / "bin" / "python", "install", "--quiet", TOOL)
        made = _run(tool / "bin" / "cyclonedx-py", "environment", "--output-reproducible", python)
    return dict(json.loads(made))


def lacking(bill: dict[str, Any], lock: str) -> list[str]:
    """The wheel and what is locked for every machine, where the bill does not name it so."""
    named = {_plain(one["name"]): one.get("version") for one in bill.get("components", ())}
    locked = _PIN.findall(lock)
    wheel = [] if "tallyformer" in named else ["tallyformer"]
    return wheel + [
        f"{name}=={version}" for name, version in locked if named.get(_plain(name)) != version
    ]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed: see above")
    return done.stdout


def main() -> None:
    """Write the bill, or say what it lacks."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} WHEEL OUTPUT")
    wheel, output = map(Path, sys.argv[1:])
    bill = described(wheel)
    if missing := lacking(bill, LOCK.read_text(encoding="utf-8")):
        sys.exit(f"error: the bill of {wheel.name} lacks {', '.join(missing)}")
    output.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
