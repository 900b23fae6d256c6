"""The server's benchmarks, rehearsed with a tiny model: their scripts run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..inference.conftest import tally_folder, tokenizer  # noqa: F401  (fixtures)

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "server"
HANG = 900
"""Seconds after which a script of some seconds is taken for stuck."""


def rehearsed(script: str, out: Path, *arguments: object) -> dict[str, Any]:
    """The result of a rehearsal."""
    command = [sys.executable, str(SCRIPTS / script), "--rehearse", "--out", str(out)]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stdout
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["machine"]["processor"] and script in found["command"]
    return found


def test_all_bars_are_measured_and_what_does_not_depend_on_speed_holds(
    tally_folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    found = rehearsed("bars.py", tmp_path / "bars.json", "--model", tally_folder)
    assert found["start"]["memory_mb"]["most"] > 0
    assert len(found["overhead"]["together"]["rounds"]["server"]) == 1
    assert found["sigterm"]["cut"] == [] and found["sigterm"]["exit_status"] == 0
    assert found["hang_ups"]["all_places_free"] and found["hang_ups"]["answers_afterwards"]
    assert set(found["hang_ups"]["outcomes"]) <= {"hung up", "HTTP 200", "HTTP 429"}
    assert found["overload"]["bad"] == {} and found["overload"]["answers_afterwards"]
    assert found["day"]["not_as_it_should_be"] == {} and found["day"]["all_places_free"]


def test_a_peer_is_any_command_that_serves_the_api(tally_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    serve = [Path(sys.executable).with_name("tallyformer"), "serve", "--port", "{port}"]
    peer = " ".join(map(str, [*serve, "--model", f"x={tally_folder}"]))
    found = rehearsed(
        "peers.py",
        tmp_path / "p.json",
        "--model",
        tally_folder,
        "--clients",
        4,
        "--peer",
        f"same={peer}",
    )
    of = found["4 clients"]
    assert of["requests_per_second"]["best_peer"] == "same"
    assert of["p95_ttft_ms"]["ratio"] > 0
    assert not any(one["failed"] for several in of["rounds"].values() for one in several)
