"""Step 2: the tests marked `gpu`. In a rehearsal they run on the CPU.

python benchmarks/gpu/gpu_tests.py --out tests.json [--rehearse]
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from typing import Any

import pytest
from measuring import ROOT, read_options, the_device, write_result

PROCESSES = "6"
TESTS = ROOT / "tests"
REASON_CHARACTERS = 2000


class Outcomes:
    """A plugin of pytest that notes what became of each test."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        entry["seconds"] = round(entry["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            entry["outcome"] = report.outcome
            reason = report.longreprtext.replace(f"{ROOT}/", "")
            entry["reason"] = reason[-REASON_CHARACTERS:]


def main() -> None:
    options = read_options(__doc__)
    device = the_device(options.rehearse)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # same bits each time, where a test asks
    if options.rehearse:
        os.environ["TALLYFORMER_GPU_TESTS_ON"] = "cpu"
    files = sorted(map(str, TESTS.rglob("test_gpu*.py")))
    # Another version's warnings are news here, but no failures.
    arguments = ["-m", "gpu", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    if not options.rehearse and importlib.util.find_spec("xdist"):
        arguments += ["--numprocesses", PROCESSES]
    outcomes = Outcomes()
    status = pytest.main([*arguments, *files], plugins=[outcomes])
    counts = Counter(entry["outcome"] for entry in outcomes.tests.values())
    bad = [name for name, entry in outcomes.tests.items() if entry["outcome"] == "failed"]
    values = {
        "counts": dict(counts),
        "tests": outcomes.tests,
        "summary": [
            ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())),
            *(f"failed: {name}" for name in bad),
        ],
    }
    write_result(options.out, "the tests that need a GPU", device, values)
    raise SystemExit(int(status))


if __name__ == "__main__":
    main()
