"""Lighthouse's performance score of the chat page, as a phone on a slow line has it.

    python benchmarks/page_load.py --model runs/quickstart/model

It starts `tallyformer serve` and runs Lighthouse, which npx fetches at the version below, a number
of times with its own defaults: a mid-range phone's processor (a quarter of this one's speed) and
slow 4G, simulated. It needs Node.js and Chromium. Scores fall when the machine does other work:
`benchmark_index` is Lighthouse's own measure of its speed, of each run.

Writes benchmarks/results/<date>-page-load.json, or the file of --out; --rehearse runs it once and
writes nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

from measuring import spread, write_result

RESULTS = Path(__file__).parent / "results"
LIGHTHOUSE = "lighthouse@12.8.2"
"""The newest that runs on Node.js 20."""
FLAGS = "--headless=new --no-sandbox --disable-gpu"
METRICS = {
    "first_contentful_paint_ms": "first-contentful-paint",
    "largest_contentful_paint_ms": "largest-contentful-paint",
    "total_blocking_time_ms": "total-blocking-time",
    "speed_index_ms": "speed-index",
    "cumulative_layout_shift": "cumulative-layout-shift",
}


@contextmanager
def served(model: Path, port: int) -> Iterator[str]:
    """The server's address, once its model is ready."""
    command = Path(sys.executable).with_name("tallyformer")
    process = subprocess.Popen(
        [command, "serve", "--model", f"sft={model}", "--port", str(port)],
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _ready(address):
            if process.poll() is not None:
                sys.exit(
                    f"error: tallyformer serve --model {model} ended. Start it by hand to see why"
                )
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready") as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def report(address: str, chromium: str) -> dict[str, Any]:
    """One run of Lighthouse: the score, its metrics, the bytes that were fetched."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        done = subprocess.run(
            [
                *("npx", "--yes", LIGHTHOUSE, address, "--quiet", f"--chrome-flags={FLAGS}"),
                *("--only-categories=performance", "--output=json", f"--output-path={out}"),
            ],
            env={**os.environ, "CHROME_PATH": chromium},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"error: {LIGHTHOUSE}: {done.stderr.strip()}")
        found = json.loads(out.read_text(encoding="utf-8"))
    audits = found["audits"]
    return {
        "score": found["categories"]["performance"]["score"],
        **{name: audits[audit]["numericValue"] for name, audit in METRICS.items()},
        "bytes": sum(one["transferSize"] for one in audits["network-requests"]["details"]["items"]),
        "benchmark_index": found["environment"]["benchmarkIndex"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder with a model")
    parser.add_argument("--port", type=int, default=8137)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rehearse", action="store_true", help="one round, nothing is written")
    options = parser.parse_args()
    if options.chromium is None or shutil.which("npx") is None:
        sys.exit("error: it needs npx (Node.js) and Chromium: --chromium FILE")
    reports: list[dict[str, Any]] = []
    with served(options.model, options.port) as address:
        for _ in range(1 if options.rehearse else options.rounds):
            reports.append(report(address, options.chromium))
            print(json.dumps(reports[-1]), flush=True)
    if options.rehearse:
        return
    today = datetime.datetime.now(datetime.UTC).date()
    values = {name: spread([one[name] for one in reports]) for name in reports[0]}
    write_result(
        options.out or RESULTS / f"{today}-page-load.json",
        f"The chat page's first load by {LIGHTHOUSE}, mobile, simulated slow 4G",
        None,
        values,
    )


if __name__ == "__main__":
    main()
