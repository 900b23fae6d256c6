"""The tensor-parallel plan: two processes that split each matrix are the model that one is."""

import os
import subprocess
import sys

import pytest
import torch

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import (
    TallyFormerForCausalLM,
    TallyFormerForSequenceClassification,
    TallyFormerModel,
)

PROCESSES = 2
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}

SCRIPT = f"""
import datetime, sys
from pathlib import Path

import torch
from transformers.distributed import DistributedConfig

from tallyformer.model.modeling_tallyformer import (
    TallyFormerForCausalLM,
    TallyFormerForSequenceClassification,
)

place, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{{place}}/store", rank=rank, world_size={PROCESSES},
    timeout=datetime.timedelta(seconds=60),
)
# transformers 5.4 has the first form alone, and its later versions warn of it.
split = {{"tp_plan": "auto"}}
if "tp_plan" in DistributedConfig.__dataclass_fields__:
    split = {{"distributed_config": DistributedConfig(tp_plan="auto", tp_size={PROCESSES})}}
# Sums over two halves instead of one, in float32.
order = {{"atol": 2e-5, "rtol": 1e-4}}


def local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def half(whole, part):
    "The part of a whole tensor that this process has."
    for dim in range(whole.ndim):
        if whole.shape[dim] != part.shape[dim]:
            return whole.chunk({PROCESSES}, dim)[rank]
    return whole


for folder in sorted(path for path in place.iterdir() if path.is_dir()):
    wanted = torch.load(folder / "wanted.pt")
    ids, mask = wanted["ids"], torch.ones_like(wanted["ids"])
    generates = "generated" in wanted
    cls = TallyFormerForCausalLM if generates else TallyFormerForSequenceClassification
    model = cls.from_pretrained(folder, **split)
    for name, parameter in model.model.blocks.named_parameters():
        if parameter.ndim == 2:
            assert 2 * local(parameter).numel() == wanted["sizes"][name], name
    if "distributed_config" in split:
        embedding = local(model.get_input_embeddings().weight)
        assert len(embedding) in (48, 49), "each process has its half of the 97 rows"
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(logits, wanted["logits"], **order)
    if generates:
        found = model.generate(ids, attention_mask=mask, **{GREEDY!r})
        assert torch.equal(found, wanted["generated"])
        model.train()
        model(ids, labels=ids).loss.backward()
        seen = 0
        for name, parameter in model.named_parameters():
            # 5.4 puts the bias that is added after the sum under another name.
            whole = wanted["gradients"].get(name.replace("._bias", ".bias"))
            gradient = local(parameter.grad)
            torch.testing.assert_close(gradient, half(whole, gradient), msg=name, **order)
            seen += 1
        assert seen == len(wanted["gradients"])
torch.distributed.destroy_process_group()
"""


def _write(model, ids, folder):
    """A model's folder, and what one process computes with it."""
    model.save_pretrained(folder)
    mask = torch.ones_like(ids)
    wanted = {
        "ids": ids,
        "logits": model(ids, attention_mask=mask).logits.detach(),
        "sizes": {name: p.numel() for name, p in model.model.blocks.named_parameters()},
    }
    if isinstance(model, TallyFormerForCausalLM):
        wanted["generated"] = model.generate(ids, attention_mask=mask, **GREEDY)
        model.train()
        model(ids, labels=ids).loss.backward()
        wanted["gradients"] = {name: p.grad for name, p in model.named_parameters()}
    torch.save(wanted, folder / "wanted.pt")


def test_two_processes_compute_what_one_does(build, shapes, ids, tmp_path):
    """Logits, generated tokens and gradients of every kind of model; the vocabulary is odd."""
    for name, shape in shapes.items():
        _write(build(**shape), ids, tmp_path / name)
    config = TallyFormerConfig(**{**build().config.to_dict(), "num_labels": 3})
    _write(TallyFormerForSequenceClassification(config).eval(), ids, tmp_path / "labels")
    env = {**os.environ, "WORLD_SIZE": str(PROCESSES), "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(rank)],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        for process in running:
            said = process.communicate(timeout=240)[1]
            assert process.returncode == 0, said
            assert "match nothing" not in said and "not applied" not in said, said
    finally:
        for process in running:
            process.kill()


@pytest.mark.parametrize("mlp_type", ["gelu", "swiglu"])
def test_the_plan_names_the_matrices_that_there_are(mlp_type, build):
    model = build(mlp_type=mlp_type)
    matrices = {
        name.replace(".0.", ".*.").replace(".1.", ".*.")
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding)
    }
    assert {*model.config.base_model_tp_plan, *TallyFormerModel._tp_plan} == matrices
    assert "base_model_tp_plan" not in model.config.to_dict()
