"""Adds to a step's result how the step went, or makes one if the step left none; and the summary.

    python record.py --out RESULTS --step NAME --exit STATUS --seconds S --limit L --log FILE -- ...

Loads nothing but the standard library, so that it works where nothing else does.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import platform
from pathlib import Path
from typing import Any

STATES = {0: "done", 124: "out of time", 137: "out of time", 125: "not begun"}
"""By the exit status, which for the latter ones is that of `timeout`; others have failed."""
LOG_LINES = 30
ROOT = f"{Path(__file__).resolve().parents[2]}/"
"""Is left out of commands and logs, so that a result says nothing of whose machine it was."""


def main() -> None:
    options = _options()
    path = options.out / f"{options.step}.json"
    result = {**_read(path), "step": _how_it_went(options)}
    machine = _read(options.out / "machine.json")
    known = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.get("machine", {"system": platform.platform()}),
        "versions": machine.get("versions", {"python": platform.python_version()}),
    }
    _write(path, {**known, **result})
    (options.out / "summary.md").write_text(summary(options.out), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", required=True)
    parser.add_argument("--exit", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _how_it_went(options: argparse.Namespace) -> dict[str, Any]:
    state = STATES.get(options.exit, "failed")
    went = {
        "name": options.step,
        "state": state,
        "exit": options.exit,
        "seconds": options.seconds,
        "limit_seconds": options.limit,
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "command": " ".join(options.command).replace(ROOT, ""),
    }
    if state != "done":
        text = options.log.read_text(encoding="utf-8", errors="replace")
        went["log_end"] = text.replace(ROOT, "").splitlines()[-LOG_LINES:]
    return went


def summary(out: Path) -> str:
    """All steps so far, with the lines that their results give for it."""
    lines = []
    results = [_read(path) for path in out.glob("*.json")]
    for result in sorted((r for r in results if "step" in r), key=lambda r: r["step"]["ended"]):
        step = result["step"]
        lines.append(f"- **{step['name']}**: {step['state']} after {step['seconds']} s")
        lines += [f"  - {line}" for line in result.get("summary", [])]
        lines += [f"  - {line}" for line in step.get("log_end", [])[-1:]]
    return "\n".join(["# GPU run", "", *lines, ""])


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
