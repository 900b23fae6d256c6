"""Keeps the libraries' own chatter out of the command line's output."""

from __future__ import annotations

import os


def quieten_libraries() -> None:
    """Ask transformers and the hub client for errors only. Call it before they are imported.

    A variable that the user has set wins.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
