"""A forked process has none of the threads that compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FORKED = """
import os, sys
from tallyformer.errors import UsageError
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

llm = LLM.from_pretrained(sys.argv[1], device="cpu")
params = SamplingParams(max_tokens=3, temperature=0)
before = llm.generate("A", params)
child = os.fork()
if child == 0:
    try:
        llm.generate("A", params)
    except UsageError as error:
        assert "forked" in str(error)
        del llm
        own = LLM.from_pretrained(sys.argv[1], device="cpu")
        assert own.generate("A", params) == before
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert llm.generate("A", params) == before
"""


def test_a_forked_process_is_told_to_load_its_own_model(tally_folder: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tally_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
