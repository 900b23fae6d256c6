"""The kit for a borrowed GPU, rehearsed on the CPU: its scripts run from end to end at toy size."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.runs.data import load_shards, load_tokenizer
from tallyformer.training.metrics import read_metrics

KIT = Path(__file__).parents[2] / "benchmarks" / "gpu"
HANG = 900
"""Seconds after which a script of some seconds is taken for stuck."""
STEPS = ("machine", "tests", "train-step", "distillation", "generation", "inference")
FILE_MIB, SHIPMENT_MIB = 0.03, 0.1

NANOGPT = """
import torch
from dataclasses import dataclass

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    bias: bool

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed = torch.nn.Embedding(config.vocab_size, config.n_embd)

    def configure_optimizers(self, decay, rate, betas, device):
        return torch.optim.AdamW(self.parameters(), rate, betas, weight_decay=decay)

    def forward(self, ids, labels):
        logits = self.embed(ids) @ self.embed.weight.T
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
"""
"""What the benchmark calls of nanoGPT, which is not part of this repository."""


def run(
    script: str, *arguments: object, status: int = 0, python: str | Path = sys.executable
) -> str:
    """Run a script of the kit; what it prints."""
    command = [str(KIT / script), *map(str, arguments)]
    if script.endswith(".py"):
        command.insert(0, sys.executable)
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHON": str(python), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def test_every_step_of_run_all_leaves_a_result_of_what_it_measured(tmp_path: Path) -> None:
    nanogpt = tmp_path / "nanogpt"
    nanogpt.mkdir()
    (nanogpt / "model.py").write_text(NANOGPT)
    out = tmp_path / "results"
    printed = run("run_all.sh", "--out", out, "--nanogpt", nanogpt, "--rehearse")
    assert states_of(printed) == dict.fromkeys(STEPS, "done"), printed
    assert len(list(out.iterdir())) <= 8
    for step in STEPS:
        result = json.loads((out / f"{step}.json").read_text())
        assert result["step"]["state"] == "done" and result["step"]["limit_seconds"] > 0
        assert result["command"] and result["date"] and result["summary"]
        assert {"torch", "transformers"} <= result["versions"].keys()
        assert "gpu" in result["machine"] or "gpu" in result
    tests = json.loads((out / "tests.json").read_text())
    assert tests["counts"]["passed"] > 15 and "failed" not in tests["counts"]
    assert json.loads((out / "machine.json").read_text())["import_failures"] == {}
    step = json.loads((out / "train-step.json").read_text())
    assert 0 < step["share_of_peak"]["tallyformer"] < 1 and step["share_of_peak"]["nanogpt"] > 0
    assert step["ratio"]["least"] <= step["ratio"]["median"] <= step["ratio"]["most"]
    engine = json.loads((out / "inference.json").read_text())
    subjects = {"engine", "engine, batch_invariant", "engine without graphs", "transformers"}
    assert engine["tokens_per_second"].keys() == {"1", "3"}
    for measured in (*engine["tokens_per_second"].values(), engine["seconds_to_first_token"]):
        assert measured.keys() == subjects and min(measured.values()) > 0
    assert engine["launches"].keys() == subjects and engine["failed"] == {}
    assert any("batch_invariant, 3 streams" in line for line in engine["summary"])
    assert {"matmul", "optimizer", "attention", "idle"} <= step["profile"]["shares"].keys()


def states_of(summary: str) -> dict[str, str]:
    """What became of each step."""
    lines = [line for line in summary.splitlines() if line.startswith("- **")]
    return {line.split("**")[1]: line.split(": ")[1].split(" after ")[0] for line in lines}


def test_a_step_that_fails_or_hangs_leaves_a_result_and_does_not_stop_the_rest(
    tmp_path: Path,
) -> None:
    python, out = tmp_path / "python", tmp_path / "results"
    python.write_text(
        f"""#!/bin/sh
case $1 in
  *record.py) exec {sys.executable} "$@" ;;
  *machine.py) echo the reason; exit 3 ;;
  *gpu_tests.py) exit 0 ;;
  *train_step.py) sleep {HANG} ;;
esac
"""
    )
    python.chmod(0o755)
    # Five times as many in a rehearsal.
    printed = run("run_all.sh", "--out", out, "--seconds", 2, "--rehearse", python=python)
    states = states_of(printed)
    assert list(states.items()) == [
        ("machine", "failed"),
        ("tests", "done"),
        ("train-step", "out of time"),
        ("distillation", "not begun"),
        ("generation", "not begun"),
        ("inference", "not begun"),
    ]
    assert "  - the reason" in printed.splitlines()
    step = json.loads((out / "machine.json").read_text())["step"]
    assert step["exit"] == 3 and step["log_end"] == ["the reason"]


def test_a_part_of_the_engines_measurement_that_fails_is_noted_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    """Here transformers' generate has no attention of that name, and the engine needs none."""
    out, script = tmp_path / "inference.json", tmp_path / "broken.py"
    script.write_text(
        f"""import sys
sys.path.insert(0, {str(KIT)!r})
import inference
inference.LLM.from_pretrained, load = None, inference.LLM.from_pretrained
def broken(*args, **kwargs):
    llm = load(*args, **kwargs)
    llm.model.generation_config.num_beams = -1
    return llm
inference.LLM.from_pretrained = broken
sys.argv = ["inference.py", "--out", {str(out)!r}, "--rehearse"]
inference.main()
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=HANG)
    found = json.loads(out.read_text())
    assert done.returncode == 1
    assert found["failed"] and all(part.endswith("transformers") for part in found["failed"])
    assert found["tokens_per_second"]["3"].keys() == {
        "engine",
        "engine, batch_invariant",
        "engine without graphs",
    }
    assert any(line.startswith("failed: ") for line in found["summary"])


def test_whether_graphs_are_used_is_asked_again_after_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that cannot be recorded may be needed only while something is measured."""
    monkeypatch.syspath_prepend(KIT)
    inference = importlib.import_module("inference")
    inference.make_model(tmp_path, inference.SMALL)
    llm = LLM.from_pretrained(tmp_path, device="cpu", runner="torch")
    out, name = tmp_path / "inference.json", "engine, batch_invariant"
    found = inference.Found(out, torch.device("cpu"), inference.Work(inference.SMALL))
    subjects = inference.make_subjects(llm, found)
    assert json.loads(out.read_text())["cuda_graphs"][name] == "device cpu"
    with found.failures("a part"):
        subjects[name]([[1, 2]], 2)
        found.with_graphs[name].runner._graphs._problems = {"decode": "out of memory"}
    assert json.loads(out.read_text())["cuda_graphs"][name] == "out of memory"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NNT", "matmul"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16>", "matmul"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "matmul"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16", "attention"),
        ("triton_red_fused__to_copy_exp_logsumexp_mul_sub_0", "norm and elementwise"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>", "optimizer"),
        ("Memcpy HtoD (Pinned -> Device)", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, MulFunctor>", "norm and elementwise"),
        ("aten::addmm", "matmul"),
        ("aten::bmm", "matmul"),
    ],
)
def test_a_kernel_counts_as_what_its_name_says(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(KIT)
    kernels = importlib.import_module("kernels")
    assert kernels.kind_of(name) == kind


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two packs of the rehearsal's recipe."""
    folder = tmp_path_factory.mktemp("packs")
    run("pack.py", KIT / "rehearsal.yaml", "--out", folder)
    return folder


def documents(run_folder: Path) -> dict[str, list[bytes]]:
    """The training documents of each source, in the order of their bytes."""
    folder = RunFolder(run_folder)
    shards = load_shards(folder, load_tokenizer(folder))
    return {
        source: sorted(
            np.asarray(shard.tokens)[start:end].tobytes()
            for shard in stream.shards
            for start, end in zip(
                shard.starts.tolist(), [*shard.starts.tolist()[1:], len(shard.tokens)], strict=True
            )
        )
        for source, stream in shards.train.items()
    }


def test_packs_hold_every_document_once_and_each_a_like_part_of_every_source(
    packs: Path, tmp_path: Path
) -> None:
    wanted = documents(packs / "run")
    run("unpack.py", packs / "pack-1", "--out", tmp_path / "one")
    first = documents(tmp_path / "one")
    for source, texts in wanted.items():
        share = sum(map(len, first[source])) / sum(map(len, texts))
        assert 0.4 < share < 0.6
    run("unpack.py", packs / "pack-1", packs / "pack-2", "--out", tmp_path / "both")
    assert documents(tmp_path / "both") == wanted


def test_a_pack_is_refused_that_is_damaged_too_large_or_comes_before_the_first(
    packs: Path, tmp_path: Path
) -> None:
    printed = run("unpack.py", packs / "pack-2", "--out", tmp_path / "second", status=1)
    assert "Unpack the first pack before" in printed
    damaged = tmp_path / "damaged"
    subprocess.run(["cp", "-r", packs / "pack-1", damaged], check=True)
    file = next(damaged.rglob("*.bin.xz"))
    file.write_bytes(file.read_bytes()[:-40])
    assert "damaged" in run("unpack.py", damaged, "--out", tmp_path / "other", status=1)
    recipe = KIT / "rehearsal.yaml"
    printed = run("pack.py", recipe, "--out", packs, "--limit", "0.01", status=1)
    assert "more than --limit 0.01" in printed


def test_flagship_trains_leaves_parts_within_the_limits_and_goes_on_with_a_second_pack(
    packs: Path, tmp_path: Path
) -> None:
    work, sent = tmp_path / "work", tmp_path / "sent"
    always = ["--work", work, "--recipe", KIT / "rehearsal.yaml", "--rehearse"]
    always += ["--file-mib", FILE_MIB, "--shipment-mib", SHIPMENT_MIB]
    run("flagship.sh", *always, "--pack", packs / "pack-1", "--minutes", "0.1", "--out", sent)
    check_shipment(sent)
    begun = json.loads((sent / "weights.json").read_text())["numbers"]
    assert begun["packs"] == ["00000.bin", "00000.bin"]

    run("flagship.sh", *always, "--pack", packs / "pack-2", "--minutes", "0.02")
    listing = json.loads((work / "parts/int8-1/weights.json").read_text())["numbers"]
    assert listing["steps"] > begun["steps"] and "00001.bin" in listing["packs"]
    lines = read_metrics(work / "run/pretrain/metrics.jsonl")
    assert [x["step"] for x in lines] == sorted(x["step"] for x in lines)
    perplexity = {kind: found["perplexity"] for kind, found in listing["perplexity"].items()}
    # bf16 keeps 8 bits of each weight, int8 7 of the largest of a row.
    assert perplexity["bf16"] == pytest.approx(perplexity["fp32"], rel=0.01)
    assert perplexity["int8"] == pytest.approx(perplexity["fp32"], rel=0.01)

    shipments = sorted((work / "parts").glob("bf16-*"))
    assert len(shipments) > 1
    for number, shipment in enumerate(shipments, start=1):
        place = tmp_path / f"bf16-{number}"
        run("flagship.sh", *always, "--minutes", "0", "--send", shipment.name, "--out", place)
        check_shipment(place)
    model = tmp_path / "model"
    run("restore.py", *(tmp_path / shipment.name for shipment in shipments), "--out", model)
    exported, restored = (load_file(f / "model.safetensors") for f in (work / "run/model", model))
    assert {name: tensor.dtype for name, tensor in restored.items()} == dict.fromkeys(
        exported, torch.bfloat16
    )
    for name, tensor in exported.items():
        assert torch.equal(restored[name], tensor.to(torch.bfloat16)), name
    eight = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    [output] = LLM.from_pretrained(model).generate("Interest is", eight)
    assert len(output.token_ids) == 8
    assert "give all of" in run(
        "restore.py", tmp_path / "bf16-2", "--out", tmp_path / "half", status=1
    )


def check_shipment(folder: Path) -> None:
    """Its files are within the limits and as its listing says."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert max(sizes.values()) <= FILE_MIB * 2**20 and sum(sizes.values()) <= SHIPMENT_MIB * 2**20
    listing = json.loads((folder / "weights.json").read_text())
    assert listing["files"].keys() == sizes.keys() - {"weights.json"}
    for name, entry in listing["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]
