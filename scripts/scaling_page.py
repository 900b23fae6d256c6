"""The tables of docs/scaling.md, from measured results and assumptions that are written there.

    python scripts/scaling_page.py          # write them
    python scripts/scaling_page.py --check  # fail if they are not those of the results

Everything is a formula of three measurements (benchmarks/results/*-inference.json and, once there
is one, *-server.json) and of the assumptions below; change these to yours and run it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"
RESULTS = ROOT / "benchmarks" / "results"
USERS = (1, 100, 1_000, 10_000, 100_000, 1_000_000)
EXAMPLES = (1_000, 100_000, 1_000_000)
HOURS_OF_A_MONTH = 730


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What nobody can measure before there are users."""

    online: float = 0.05
    pause_seconds: float = 60.0
    prompt_tokens: int = 100
    answer_tokens: int = 100
    utilisation: float = 0.5
    machine_cores: int = 32
    machine_bandwidth: float = 200e9
    redis_calls: int = 6
    core_hour_price: float = 0.04


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What this code does, on the machine that its results name.

    Attributes:
        source: the results' files.
        cores: of that machine, all used.
        streams: at once, when `tokens` were generated in a second.
        first_seconds: to the first token after `first_prompt` ids, on all cores.
        replica_mb: memory of a process.
        late: speed of one stream at position 250, where at 10 it is 1.
        server_share: of the engine's throughput that the HTTP server takes; None: not measured.
    """

    source: tuple[str, ...]
    cores: int
    streams: int
    tokens: float
    first_prompt: int
    first_seconds: float
    replica_mb: float
    late: float
    server_share: float | None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Bytes that a step of the measured model moves: `tally-51m` with int8 weights."""

    parameters: int = 51_000_000
    cache_bytes_per_token: int = 2 * 8 * 512 * 2


def measured(folder: Path = RESULTS) -> Measured:
    """The newest results."""
    engine = newest(folder, "*-inference.json")
    found = json.loads(engine.read_text(encoding="utf-8"))
    many = _median(found, "64 streams, int8")
    first = _median(found, "first id after 128, int8, ms")
    sources, share = [engine.name], None
    if any(folder.glob("*-server.json")):
        server = newest(folder, "*-server.json")
        share = _server_share(json.loads(server.read_text(encoding="utf-8")))
        sources.append(server.name)
    return Measured(
        source=tuple(sources),
        cores=found["machine"]["cores"],
        streams=64,
        tokens=many,
        first_prompt=128,
        first_seconds=first / 1000,
        replica_mb=found["peak_mb"]["native:int8"],
        late=found["position"]["native:int8"]["ratio"],
        server_share=share,
    )


def newest(folder: Path, pattern: str) -> Path:
    """The last one by date, which its name begins with."""
    return sorted(folder.glob(pattern))[-1]


def _median(found: dict[str, Any], measure: str) -> float:
    one = next(m for m in found["measures"] if m["measure"] == measure)
    return float(one["engines"]["native:int8"]["median"])


def _server_share(found: dict[str, Any]) -> float:
    ways = found["overhead"]
    way = ways.get("apart", ways.get("together"))
    return float(way["share_of_throughput"]["median"])


def core_seconds(have: Measured, assume: Assumed) -> float:
    """Of one answer: its prompt's positions and its tokens, and the server's part."""
    prompt = assume.prompt_tokens * have.first_seconds * have.cores / have.first_prompt
    answer = assume.answer_tokens * have.cores / have.tokens
    return (prompt + answer) / (1 - (have.server_share or 0.0))


def step_bytes(have: Measured, assume: Assumed, shape: Shape) -> float:
    """What a step of all streams reads: the weights once, and every stream's keys and values."""
    position = assume.prompt_tokens + assume.answer_tokens / 2
    return shape.parameters + have.streams * position * shape.cache_bytes_per_token


def basis(have: Measured, assume: Assumed, shape: Shape) -> list[str]:
    """What one core does."""
    steps = have.tokens / have.streams
    moved = step_bytes(have, assume, shape) * steps
    share = "not measured yet" if have.server_share is None else f"{have.server_share:.0%}"
    seconds = core_seconds(have, assume)
    rows = [
        ("tokens a second, one core", f"{have.tokens / have.cores:,.0f}"),
        ("core-seconds of a prompt's token", f"{_of_prompt(have):.6f}"),
        ("part that the HTTP server takes", share),
        ("core-seconds of one answer", f"{seconds:.3f}"),
        ("answers a second, one core, full", f"{1 / seconds:.1f}"),
        ("core-hours of a million answers", f"{1e6 * seconds / 3600 / assume.utilisation:,.1f}"),
        ("tokens a second that a user reads, slots full", f"{steps:.0f}"),
        ("speed at position 250, one stream, where 1 is that at 10", f"{have.late:.2f}"),
        ("memory of a replica, MB", f"{have.replica_mb:,.0f}"),
        (f"memory traffic of a {have.cores}-core replica, GB/s", f"{moved / 1e9:.0f}"),
        (
            f"cores at which {assume.machine_bandwidth / 1e9:.0f} GB/s are used up",
            f"{have.cores * assume.machine_bandwidth / moved:.0f}",
        ),
    ]
    return table(("measured, or computed from it", ""), rows)


def _of_prompt(have: Measured) -> float:
    return have.first_seconds * have.cores / have.first_prompt


def sizes(have: Measured, assume: Assumed) -> list[str]:
    """What so many users need."""
    rows = []
    for users in USERS:
        rate = users * assume.online / assume.pause_seconds
        cores = cores_for(users, have, assume)
        streams = rate * assume.answer_tokens * have.streams / have.tokens
        rows.append(
            (
                f"{users:,}",
                f"{rate:,.3g}" if rate < 100 else f"{rate:,.0f}",
                f"{max(1, round_up(streams)):,}",
                f"{rate * assume.answer_tokens:,.0f}",
                f"{max(1, round_up(cores)):,}",
                f"{machines_of(assume.machine_cores, cores):,}",
                f"{rate * assume.redis_calls:,.0f}",
            )
        )
    head = ("users", "requests/s", "streams at once", "events/s", "cores")
    return table((*head, f"machines of {assume.machine_cores}", "Redis calls/s"), rows)


def cores_for(users: int, have: Measured, assume: Assumed) -> float:
    """Cores that so many users need at the busiest time."""
    rate = users * assume.online / assume.pause_seconds
    return rate * core_seconds(have, assume) / assume.utilisation


def machines_of(size: int, cores: float) -> int:
    """Whole machines of `size` cores that have these cores; one at least."""
    return max(1, round_up(cores / size))


def costs(have: Measured, assume: Assumed) -> list[str]:
    """A month of what so many users need, all of it at every hour."""
    sizes_of_machines = (assume.machine_cores, have.cores)
    rows = []
    for users in EXAMPLES:
        cores = cores_for(users, have, assume)
        counts = [machines_of(size, cores) for size in sizes_of_machines]
        month = [
            count * size * HOURS_OF_A_MONTH * assume.core_hour_price
            for count, size in zip(counts, sizes_of_machines, strict=True)
        ]
        paired = zip(counts, month, strict=True)
        rows.append((f"{users:,}", *(cell for n, m in paired for cell in (f"{n:,}", f"{m:,.0f}"))))
    heads = [(f"machines of {size}", "a month") for size in sizes_of_machines]
    return table(("users", *(cell for pair in heads for cell in pair)), rows)


def round_up(value: float) -> int:
    """The next whole number."""
    return int(-(-value // 1))


def assumptions(assume: Assumed) -> list[str]:
    """All of them, with their values."""
    rows = [
        ("users who are online at the busiest time", f"{assume.online:.0%}"),
        ("seconds from one request of theirs to the next", f"{assume.pause_seconds:.0f}"),
        ("tokens of a prompt, history included", f"{assume.prompt_tokens}"),
        ("tokens of an answer", f"{assume.answer_tokens}"),
        ("part of the cores that is planned for", f"{assume.utilisation:.0%}"),
        ("cores of a machine", f"{assume.machine_cores}"),
        ("its memory bandwidth, GB/s", f"{assume.machine_bandwidth / 1e9:.0f}"),
        ("Redis calls of a request with both limits", f"{assume.redis_calls}"),
        ("price of a core for an hour, in the example of costs", f"{assume.core_hour_price:.2f}"),
    ]
    return table(("assumed", ""), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown; numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def filled(page: str, have: Measured, assume: Assumed) -> str:
    """The page with its tables made again."""
    blocks: dict[str, Callable[[], list[str]]] = {
        "assumptions": lambda: assumptions(assume),
        "basis": lambda: basis(have, assume, Shape()),
        "sizes": lambda: sizes(have, assume),
        "costs": lambda: costs(have, assume),
        "sources": lambda: [f"- [{name}](../benchmarks/results/{name})" for name in have.source],
    }
    for name, lines in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n" + "\n".join(lines()) + f"\n\n{end}{after}"
    return page


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    made = filled(page, measured(), Assumed())
    if check and made != page:
        sys.exit(f"error: {PAGE.name} is not made of the results: python scripts/scaling_page.py")
    if not check:
        PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
