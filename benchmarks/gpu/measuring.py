"""What every result of the kit says: what was measured, where, when, and how far it spread."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy", "triton")


def read_options(what: str | None) -> argparse.Namespace:
    """Options of a step of the kit: `out`, the file of the result, and `rehearse`.

    Args:
        what: the script's docstring; its first line is the help's.
    """
    assert what
    parser = argparse.ArgumentParser(description=what.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    return parser.parse_args()


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least, most and all of some measurements."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "all": [float(f"{value:.6g}") for value in values],
    }


def interleaved(
    subjects: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Let subjects take turns, in the opposite order every other round; each gives a number."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in list(subjects)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(subjects[name]())
            print(f"round {number + 1}: {name} {found[name][-1]:.6g}", flush=True)
    return {name: spread(values) for name, values in found.items()}


def seconds_of(work: Callable[[], Any], device: Any) -> float:
    """Wall time of some work, with what it left to do on the device."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: Any) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def the_device(rehearse: bool) -> Any:
    """The GPU; in a rehearsal the CPU.

    Raises:
        SystemExit: there is no GPU.
    """
    import torch

    if rehearse:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here. Give --rehearse to try the scripts on the CPU")
    return torch.device("cuda")


def write_result(path: Path, what: str, device: Any, values: Mapping[str, Any]) -> None:
    """Write a result with the machine, the command, the date and the versions."""
    from tallyformer.evaluation.machine import describe_machine

    result = {
        "what": what,
        "command": " ".join(["python", *map(_shown, sys.argv)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(device),
        "versions": versions(),
        **values,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _shown(argument: str) -> str:
    """Files of this repository by their place in it, others by their name."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def versions() -> dict[str, str]:
    """Of Python and of the packages that the numbers depend on."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
