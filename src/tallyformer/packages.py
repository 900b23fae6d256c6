"""Packages of the extras, by the modules that they install: which are missing, and how to get them.

What is installed without an extra is enough to answer on a CPU (docs/decisions/0010).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": (
        "accelerate",
        "jinja2",
        "matplotlib",
        "peft",
        "pyarrow",
        "pydantic",
        "pynvml",
        "safetensors",
        "tensorboard",
        "tiktoken",
        "torch",
        "tqdm",
        "transformers",
        "yaml",
        "zstandard",
    ),
    "hub": ("datasets",),
    "bench": ("httpx2", "jinja2", "matplotlib"),
    "grammar": ("llguidance",),
    "serve": (
        "alembic",
        "fastapi",
        "httptools",
        "limits",
        "llguidance",
        "prometheus_client",
        "pydantic",
        "sqlalchemy",
        "starlette",
        "uvicorn",
        "uvloop",
    ),
    "ray": ("ray",),
    "scale": ("psycopg", "redis"),
    "export": ("ctranslate2", "gguf", "onnx", "onnxruntime"),
}
"""The modules of each extra; a test compares them with pyproject.toml."""


def missing(*modules: str) -> list[str]:
    """Those that cannot be found; nothing is imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def how_to_get(module: str, extra: str | None = None) -> str | None:
    """The command that installs a module; None for one that no extra has.

    Args:
        module: its full name.
        extra: the one that is meant where several have it.
    """
    root = module.partition(".")[0]
    found = [name for name, modules in EXTRAS.items() if root in modules]
    if not found:
        return None
    return f"pip install 'tallyformer[{extra if extra in found else found[0]}]'"


def what_to_install(error: ModuleNotFoundError, extra: str | None = None) -> str | None:
    """One line for an import that failed; None if no extra has the module.

    Args:
        error: of the import.
        extra: as in `how_to_get`.
    """
    command = how_to_get(error.name or "", extra)
    return command and f"this needs {error.name}, which is not installed. Install it: {command}"
