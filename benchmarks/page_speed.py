"""How smooth the chat page is while an answer streams, and while a long conversation is scrolled.

    python benchmarks/page_speed.py --model runs/quickstart/model

It starts `tallyformer serve` for the page and, in headless Chromium, measures the time between
frames (requestAnimationFrame) and the tasks of 50 ms and more

- of the page at rest: the most that this machine can show;
- while an answer comes at 500 tokens a second, with tables, code and formulas, from a server that
  page_speed.mjs puts before the real one so that no model's speed is in the measurement;
- while a conversation of 2,000 messages is scrolled to its beginning and back to its end.

It needs Node.js with web/node_modules (`npm ci` in web/) and Chromium. All run on the same cores.

Writes benchmarks/results/<date>-page-speed.json, or the file of --out; --rehearse measures once
for 2 seconds and writes nothing (so fast a scroll is no measure).
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

from measuring import write_result

from page_load import served

HERE = Path(__file__).parent
LATE_MS = 25.0
"""An interval above one and a half frames of a screen of 60 a second: a frame was missed."""
PERCENTILES = (50, 95, 99)
REHEARSED_S = 2


def measure(address: str, options: argparse.Namespace) -> dict[str, Any]:
    """One round: a summary of each of the three measurements."""
    done = subprocess.run(
        [
            *("node", str(HERE / "page_speed.mjs"), address, options.chromium),
            *map(str, (options.seconds, options.tokens_per_second)),
            *map(str, (options.messages, options.scroll_seconds)),
        ],
        capture_output=True,
        text=True,
        timeout=120 + 6 * (options.seconds + options.scroll_seconds),
    )
    if done.returncode != 0:
        sys.exit(f"error: page_speed.mjs: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    return {
        name: summary(value) if isinstance(value, dict) else value for name, value in found.items()
    }


def summary(seen: dict[str, Any]) -> dict[str, Any]:
    """Of times of frames and lengths of tasks, in ms: how they are distributed."""
    frames, tasks = seen.pop("frames"), seen.pop("tasks")
    intervals = [after - before for before, after in itertools.pairwise(frames)]
    cuts = statistics.quantiles(intervals, n=100, method="inclusive")
    return {
        "frames_per_second": 1000 * len(intervals) / (frames[-1] - frames[0]),
        "interval_ms": {f"p{share}": round(cuts[share - 1], 2) for share in PERCENTILES}
        | {"most": round(max(intervals), 2)},
        "late_share": sum(interval > LATE_MS for interval in intervals) / len(intervals),
        "long_tasks": {
            "count": len(tasks),
            "total_ms": sum(tasks),
            "longest_ms": max(tasks, default=0),
        },
        **seen,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder with a model")
    parser.add_argument("--port", type=int, default=8138)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20, help="at rest and of the answer")
    parser.add_argument("--scroll-seconds", type=int, default=60, help="from end to end, each way")
    parser.add_argument("--tokens-per-second", type=int, default=500)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--rehearse", action="store_true", help=f"once, {REHEARSED_S} s; nothing is written"
    )
    options = parser.parse_args()
    if options.chromium is None or shutil.which("node") is None:
        sys.exit("error: it needs Node.js and Chromium: --chromium FILE")
    if options.rehearse:
        options.rounds, options.seconds, options.scroll_seconds = 1, REHEARSED_S, REHEARSED_S
    rounds: list[dict[str, Any]] = []
    with served(options.model, options.port) as address:
        for _ in range(options.rounds):
            rounds.append(measure(address, options))
            print(json.dumps(rounds[-1]), flush=True)
    if options.rehearse:
        return
    today = datetime.datetime.now(datetime.UTC).date()
    write_result(
        options.out or HERE / "results" / f"{today}-page-speed.json",
        f"Frames of the chat page in headless Chromium: {options.tokens_per_second} tokens/s "
        f"streaming, {options.messages} messages scrolled from end to end in "
        f"{options.scroll_seconds} s, each way",
        None,
        {"rounds": rounds},
    )


if __name__ == "__main__":
    main()
