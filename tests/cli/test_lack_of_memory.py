"""A lack of memory that is real: the system refuses more, and the printed commands help."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from .printed import paste, printed_command

LIMITED = f"""#!{sys.executable}
import resource
from pathlib import Path

import peft, tensorboard, torch.utils.tensorboard, transformers
import tallyformer.stages.distill, tallyformer.stages.evaluate
import tallyformer.stages.export, tallyformer.stages.sft
from tallyformer.cli.main import main

loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
most = loaded + 900 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
main()
"""
"""The program, which may have 900 MiB beyond what its libraries take."""
ROWS = {"pretrain": 8192, "teacher.train": 8192, "distill.phases.0": 8192, "sft": 4096}
"""Sequences of 32 tokens, for which each training needs 1100 MiB or more: well beyond it."""


def test_a_run_whose_batches_are_too_large_ends_well_when_the_printed_commands_are_followed(
    tmp_path: Path, make_recipe: Callable[..., Path]
) -> None:
    make_recipe(tmp_path, full=True)
    pairs = [{"prompt": f"Profit {i}?", "response": f"It is {i} EUR."} for i in range(8000)]
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (tmp_path / "pairs.jsonl").write_text(lines, encoding="utf-8")
    program = tmp_path / "bin" / "tallyformer"
    program.parent.mkdir()
    program.write_text(LIMITED, encoding="utf-8")
    program.chmod(0o755)
    changes = [
        f"{training}.{change}"
        for training, rows in ROWS.items()
        for change in ("steps=1", f"micro_batch={rows}", "gradient_accumulation=1")
    ]
    changes += ["pretrain.epochs=null", "sft.epochs=null", "sft.validation_fraction=0.01"]
    pasted = " --set ".join([f"{program} run --recipe tiny.yaml --out run", *changes])
    failed: set[str] = set()
    for _ in range(3 * len(ROWS)):
        done = paste(pasted, tmp_path)
        if not done.returncode:
            break
        assert done.returncode == 3 and "out of memory" in done.stderr, done.stderr
        restart, _, _ = done.stderr.partition(". Where more memory is free, resume with: ")
        pasted = printed_command(restart)
        failed |= {
            training
            for training in ROWS
            if f"{training}.micro_batch=" in pasted.rsplit("--resume", 1)[1]
        }
    assert done.returncode == 0, done.stderr
    assert failed == set(ROWS)
    recipe = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    parts = re.findall(r"micro_batch: (\d+)\n *gradient_accumulation: (\d+)", recipe)
    assert sorted(int(rows) * int(n) for rows, n in parts) == sorted(ROWS.values()), parts
