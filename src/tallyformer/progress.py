"""Progress bars with rate and time left, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm


def progress_bar(label: str, total: float | None, unit: str, initial: float = 0) -> tqdm[Any]:
    """A bar that shows done / total, rate and time left.

    Without a terminal it prints a line every ten seconds instead of redrawing.

    Args:
        label: what is being done, at most 12 characters look best.
        total: how many units there are; None if that is unknown.
        unit: the unit's short name, for example "tok".
        initial: units done before (a resumed run).
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        desc=f"{label:<12}",
        total=total,
        unit=unit,
        unit_scale=True,
        initial=initial,
        dynamic_ncols=terminal,
        mininterval=0.2 if terminal else 10.0,
        leave=True,
    )


def note(bar: tqdm[Any], text: str) -> None:
    """Show a text behind a bar that stands still, as often as the bar itself is drawn."""
    bar.set_postfix_str(text, refresh=False)
    now = time.time()
    if now - bar.last_print_t >= bar.mininterval:
        bar.last_print_t = now
        bar.refresh()
