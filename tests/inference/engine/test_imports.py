"""What an engine with a runner of its own needs loads quickly."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("engine.client", "engine.engine", "engine.runner", "async_llm", "outputs")


def test_the_engine_loads_no_torch() -> None:
    names = [f"tallyformer.inference.{name}" for name in NAMES]
    code = f"import {', '.join(names)}, sys; print(*{{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
