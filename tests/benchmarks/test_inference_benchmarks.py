"""The engine's benchmarks that need no others' engines, rehearsed: their scripts run to the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference" / "batch_invariant.py"


def test_what_batch_invariant_costs_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    command = [sys.executable, str(SCRIPT), "--rehearse", "--rounds", "2", "--out", str(out)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout
    seconds = json.loads(out.read_text())["seconds"]
    assert set(seconds) == {"1 streams", "16 streams", "64 streams", "first token after 128"}
    for of in seconds.values():
        pairs = zip(of["invariant"]["all"], of["usual"]["all"], strict=True)
        assert of["times_as_long"]["all"] == pytest.approx([a / b for a, b in pairs], rel=1e-4)
