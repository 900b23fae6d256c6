"""Clients for Python that are no dependency of this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..server.conftest import KEY, Running, until
from ..server.test_load import nothing_runs
from .conftest import HERE, PYTHON, needs_python, ran


@needs_python
def test_langchain_finds_all_it_asks_for(keyed: Running) -> None:
    done = ran(PYTHON, HERE / "langchain_client.py", keyed.url, KEY)
    assert done.splitlines()[-1] == "all answered"
    until(lambda: nothing_runs(keyed))


def _scores(model: str, arguments: dict[str, object], cache: Path) -> dict[str, Any]:
    done = ran(
        *(PYTHON, HERE / "lm_eval_scores.py", model, json.dumps(arguments)),
        HF_DATASETS_CACHE=str(cache),
        OPENAI_API_KEY=KEY,
        OMP_NUM_THREADS="1",
    )
    scores: dict[str, Any] = json.loads(done.partition("SCORES\n")[2])
    return scores


@needs_python
def test_lm_eval_scores_the_server_as_the_model_itself(
    keyed: Running, tally_folder: Path, tmp_path: Path
) -> None:
    served = {
        "model": "tiny",
        "base_url": f"{keyed.url}/v1/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": str(tally_folder),
        "max_length": 32,
        "num_concurrent": 3,
    }
    here = {
        "pretrained": str(tally_folder),
        "trust_remote_code": True,
        "max_length": 32,
        "dtype": "float32",
    }
    by_server = _scores("local-completions", served, tmp_path)
    by_model = _scores("hf", here, tmp_path)
    assert "bits_per_byte" in by_server["table"]
    assert by_server["table"] == by_model["table"]
    samples, right = by_server["samples"], by_model["samples"]
    assert samples["written"] == right["written"]
    # Sums of log-probabilities, which both make in float32, in another order.
    assert np.ravel(samples["text"]) == pytest.approx(np.ravel(right["text"]), rel=3e-7)
    for ours, theirs in zip(samples["choice"], right["choice"], strict=True):
        assert ours == [[pytest.approx(total, rel=3e-7), greedy] for total, greedy in theirs]


@needs_python
@pytest.mark.parametrize("form", ["/v1/completions", "/v1/chat/completions"])
def test_guidellm_measures_without_an_error(
    served: Running,
    tally_folder: Path,
    tmp_path: Path,
    form: str,
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.json"
    row = json.dumps({"prompt": "A bond pays", "output_tokens_count": 8})
    prompts.write_text((row + "\n") * 200)
    backend = f"kind=openai_http,target={served.url},model=tiny,request_format={form}"
    ran(
        *(PYTHON.with_name("guidellm"), "run", "--backend", f"{backend},http2=false"),
        *("--profile", "kind=concurrent,streams=4"),
        *("--constraint", "kind=max_requests,count=24"),
        *("--tokenizer", f"kind=hf_auto,model={tally_folder}"),
        *("--data", f"kind=json_file,path={prompts}"),
        *("--output", f"kind=json,path={out}", "--disable-console-interactive"),
    )
    metrics = json.loads(out.read_text())["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]
    assert totals["errored"] == 0 and totals["successful"] == 24
    lengths = metrics["output_token_count"]["successful"]
    assert lengths["min"] == lengths["max"] == 8
    assert metrics["time_to_first_token_ms"]["successful"]["min"] > 0
