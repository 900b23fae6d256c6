"""Serving from a CPU loads neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from tallyformer.server.app import create_app, served_models
from tallyformer.server.run import uvicorn_config
from tallyformer.server.settings import ServerSettings

settings = ServerSettings(models={"tiny": Path(sys.argv[1])}, runner="native")
create_app(settings)
uvicorn_config(settings)
import asyncio
models = served_models(settings)
asyncio.run(models.load_all())
assert models.ready, models.failure
print(*{"torch", "transformers", "datasets", "pandas", "pyarrow"} & set(sys.modules))
"""


def test_a_loaded_server_has_no_torch(tally_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tally_folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
