"""Is a written model folder the model it was written from? Asked in a fresh process.

The process loads the folder through transformers' Auto classes, with the code that lies in the
folder; `tallyformer` cannot be imported there, so the folder works where it is not installed.

Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tallyformer.artifacts.program import doctor
from tallyformer.artifacts.scratch import scratch_folder
from tallyformer.child import run_child
from tallyformer.errors import ArtifactError

LOAD_AND_RUN = """
import sys
sys.modules["tallyformer"] = None
import numpy, torch, transformers
folder, ids, out = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(
    folder, trust_remote_code=True, dtype=torch.float32
).eval()
transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
with torch.inference_mode():
    logits = model(torch.from_numpy(numpy.load(ids)), use_cache=False).logits
numpy.save(out, logits.numpy())
"""


def fresh_logits(folder: Path, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) in float32 of a folder, by a process that knows nothing but the folder.

    Raises:
        ArtifactError: the folder cannot be loaded there; the last line of its error is given.
    """
    with scratch_folder(folder.parent) as scratch:
        ids, out = scratch / "ids.npy", scratch / "logits.npy"
        np.save(ids, ids_BT.numpy())
        arguments = [str(path.resolve()) for path in (folder, ids, out)]
        done = run_child(LOAD_AND_RUN, arguments, env=_environment(scratch), cwd=scratch)
        if done.status:
            raise ArtifactError(
                f"{folder}: a fresh process cannot load it with transformers ({done.last_line}). "
                f"Check the installed versions with {doctor()}, then run the same command again"
            )
        return torch.from_numpy(np.load(out))


@torch.inference_mode()
def own_logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) of a model in this process, in float32 on the CPU."""
    model.eval()
    logits: torch.Tensor = model(ids_BT.to(model.device), use_cache=False).logits
    return logits.float().cpu()


def probe_ids(vocab_size: int, context: int, seed: int = 0) -> torch.Tensor:
    """Random ids (2, T) that reach over the whole vocabulary and the whole context."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (2, min(context, 256)), generator=generator)


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest absolute difference; infinite if the shapes differ or a value is not a number."""
    if first.shape != second.shape:
        return float("inf")
    difference = float((first - second).abs().max())
    return difference if difference == difference else float("inf")


def _environment(scratch: Path) -> dict[str, str]:
    """This process's, but offline and with a place of its own for all that the process writes."""
    place = str(scratch.resolve())
    own = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": place, "TMPDIR": place}
    return {**os.environ, **own, "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
