"""From the start of a `tallyformer generate` process to its first token, and the memory it takes.

    python benchmarks/inference/first_token.py DIR/tally-int8 DIR/tally

Folders take turns, with files in the system's cache after a first round that does not count.
`--command` is another installation's, such as one without torch.

Writes benchmarks/results/<date>-first-token.json, or the file of --out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

from measuring import write_result

RESULTS = Path(__file__).parents[1] / "results"
OPTIONS = ("--device", "cpu", "--prompt", "A bond is", "--max-tokens", "8", "--ignore-eos")


def measured(command: str, folder: Path, runner: str | None) -> dict[str, float]:
    """One process: seconds to the first character, seconds of CPU time, peak memory in MB."""
    chosen = () if runner is None else ("--runner", runner)
    start = time.perf_counter()
    process = subprocess.Popen(
        [command, "generate", "--model", folder, *chosen, *OPTIONS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    if not process.stdout.read(1):
        sys.exit(f"error: {command} generate --model {folder} wrote nothing")
    first = time.perf_counter() - start
    process.stdout.read()
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    return {
        "first_token_s": first,
        "cpu_s": used.ru_utime + used.ru_stime,
        # Of this process too, as it was at the start: it must be small, so torch comes at the end.
        "peak_mb": used.ru_maxrss * 1024 / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--command", default=str(Path(sys.executable).with_name("tallyformer")))
    parser.add_argument("--runner", choices=("native", "torch"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {str(f): [] for f in options.folders}
    for number in range(options.rounds + 1):
        for folder in options.folders:
            taken = measured(options.command, folder, options.runner)
            if number:
                rounds[str(folder)].append(taken)
    result = {
        Path(folder).name: {
            name: {
                "median": round(statistics.median(values), 3),
                "least": round(min(values), 3),
                "most": round(max(values), 3),
            }
            for name in several[0]
            if (values := [one[name] for one in several])
        }
        for folder, several in rounds.items()
    }
    print(json.dumps(result, indent=2))
    import torch

    path = options.out or RESULTS / f"{datetime.date.today()}-first-token.json"
    write_result(path, __doc__.split("\n", 1)[0], torch.device("cpu"), {"folders": result})


if __name__ == "__main__":
    main()
