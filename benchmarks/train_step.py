"""The optimizer step of tally-51m against nanoGPT's, both compiled, in bf16, on this machine.

    python benchmarks/train_step.py --nanogpt ../nanoGPT

nanoGPT (https://github.com/karpathy/nanoGPT) runs its own model, optimizer set-up and training
step at its nearest size: 8 layers, 8 heads, 512 wide, vocabulary 50,304, no dropout, no biases.
TallyFormer runs `training.step.Step`, the code of `tallyformer pretrain`, on tally-51m with packed
documents and their mask. Each trainer is a process of its own that is idle while the other works;
they take turns for several rounds, so that a busy machine slows both. A round's first step is not
timed. Memory is the largest resident size, over the whole life and after compiling.

Writes benchmarks/results/<date>-train-step.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
VOCABULARY = 50260
DOCUMENT_TOKENS = 400
"""Mean length of the packed documents."""


def main() -> None:
    options = _options()
    if options.worker:
        _work(options)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    names = ["tallyformer", *(["nanogpt"] if options.nanogpt else [])]
    workers = {name: _start(name, options) for name in names}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            rounds[name].append(_ask(workers[name], options.steps))
            print(f"round {number + 1}: {name} {rounds[name][-1]}", file=sys.stderr)
    report = _report(options, rounds)
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    print(json.dumps(report, indent=2))
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        kind = "train-step-gpu" if options.device == "cuda" else "train-step"
        path = RESULTS / f"{datetime.date.today().isoformat()}-{kind}.json"
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="checkout of karpathy/nanoGPT")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument("--no-mask", action="store_true", help="attend across documents")
    parser.add_argument("--no-write", dest="write", action="store_false")
    parser.add_argument("--worker", choices=("tallyformer", "nanogpt"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _start(name: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--worker", name, "--compile", options.compile]
    command += ["--batch", str(options.batch), "--context", str(options.context)]
    command += ["--threads", str(options.threads), "--device", options.device]
    command += ["--nanogpt", str(options.nanogpt)] if options.nanogpt else []
    command += ["--no-mask"] if options.no_mask else []
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    ready = worker.stdout.readline()
    assert ready.strip() == "ready", f"{name} did not start: {ready!r}"
    return worker


def _ask(worker: subprocess.Popen[str], steps: int) -> dict[str, float]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    answer: dict[str, float] = json.loads(worker.stdout.readline())
    return answer


def _report(options: argparse.Namespace, rounds: dict[str, Any]) -> dict[str, Any]:
    report: dict[str, Any] = {
        "what": "tokens per second and memory of one bf16 training step, 51M parameters",
        "command": " ".join(["python", *sys.argv]),
        "batch": options.batch,
        "context": options.context,
        "compile": options.compile,
        "documents_masked": not options.no_mask,
        "threads": options.threads,
        "processor": _processor(),
        "gpu": _gpu() if options.device == "cuda" else None,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "rounds": options.rounds,
        "steps_a_round": options.steps,
    }
    for name, found in rounds.items():
        speeds = [r["tokens_per_second"] for r in found]
        report[name] = {
            "tokens_per_second": round(statistics.median(speeds), 1),
            "tokens_per_second_all": speeds,
            "peak_memory_mb": max(r["peak_memory_mb"] for r in found),
            "peak_memory_after_compiling_mb": max(r["steady_memory_mb"] for r in found),
        }
    if "nanogpt" in rounds:
        ours, theirs = rounds["tallyformer"], rounds["nanogpt"]
        ratios = [
            a["tokens_per_second"] / b["tokens_per_second"]
            for a, b in zip(ours, theirs, strict=True)
        ]
        report["ratio"] = {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
            "memory": round(
                report["tallyformer"]["peak_memory_mb"] / report["nanogpt"]["peak_memory_mb"], 3
            ),
        }
    return report


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _work(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    whole_life = _Memory(options.device)
    # Compilers print; standard output is for answers only.
    with contextlib.redirect_stdout(sys.stderr):
        build = _tallyformer if options.worker == "tallyformer" else _nanogpt
        step = build(options)
        step()
        step()
    peak = whole_life.megabytes()
    print("ready", flush=True)
    for line in sys.stdin:
        steady = _Memory(options.device)
        step()
        steady.wait()
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        steady.wait()
        seconds = (time.perf_counter() - start) / int(line)
        peak = max(peak, steady.megabytes())
        answer = {
            "tokens_per_second": round(options.batch * options.context / seconds, 1),
            "peak_memory_mb": round(peak, 1),
            "steady_memory_mb": round(steady.megabytes(), 1),
        }
        print(json.dumps(answer), flush=True)


class _Memory:
    """Largest memory from now on: of this process, or what torch holds on the GPU."""

    def __init__(self, device: str):
        import torch

        from tallyformer.training.hardware import PeakMemory

        self._gpu = torch.cuda if device == "cuda" else None
        self._process = PeakMemory()
        if self._gpu:
            self._gpu.reset_peak_memory_stats()

    def megabytes(self) -> float:
        if self._gpu:
            return self._gpu.max_memory_reserved() / 1e6
        return self._process.megabytes()

    def wait(self) -> None:
        """Until the GPU has done what it was told."""
        if self._gpu:
            self._gpu.synchronize()


class _RandomBatches:
    """Random ids in documents of random lengths: the cost does not depend on the text."""

    def __init__(self, batch: int, context: int):
        self._shape = (batch, context)
        self.batches_per_epoch = 1_000_000
        self.tokens_per_batch = batch * context

    def batch(self, index: int) -> Any:
        import torch

        from tallyformer.data.batch import Batch

        rows, context = self._shape
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(VOCABULARY, (rows, context + 1), generator=generator)
        starts = torch.rand(rows, context, generator=generator) < 1 / DOCUMENT_TOKENS
        return Batch(
            ids[:, :-1].contiguous(),
            ids[:, 1:].contiguous(),
            starts.cumsum(1, dtype=torch.int32),
        )

    def documents(self, index: int) -> list[str]:
        return [f"random {index}"]


def _tallyformer(options: argparse.Namespace) -> Callable[[], None]:
    import torch

    from tallyformer.config.training import PretrainSection
    from tallyformer.model.configuration_tallyformer import TallyFormerConfig
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
    from tallyformer.training.checkpoints import Checkpoints
    from tallyformer.training.compiling import compile_blocks
    from tallyformer.training.inputs import Placement
    from tallyformer.training.losses import NextTokenLoss
    from tallyformer.training.optimizers import build_optimizer
    from tallyformer.training.precision import choose_precision
    from tallyformer.training.run_state import RunState
    from tallyformer.training.step import Step

    device = torch.device(options.device)
    section = PretrainSection(steps=1, micro_batch=options.batch, gradient_accumulation=1)
    compiled = options.compile == "on"
    model = TallyFormerForCausalLM(TallyFormerConfig(dropout=0.0)).to(device).train()
    if compiled:
        compile_blocks(model)
    step = Step(
        name="benchmark",
        model=model,
        loss=NextTokenLoss(section.z_loss, compiled=compiled),
        source=_RandomBatches(options.batch, options.context),
        optimizer=build_optimizer(model, section.optimizer),
        section=section,
        precision=choose_precision("bf16", device),
        placement=Placement(device, attend_across_documents=options.no_mask),
        checkpoints=Checkpoints(Path("no-checkpoints"), ""),
        resume_command="",
    )
    state = RunState()

    def one_step() -> None:
        step.run(state, 1e-4, lambda: False)
        state.step += 1

    return one_step


def _nanogpt(options: argparse.Namespace) -> Callable[[], None]:
    import torch

    sys.path.insert(0, str(options.nanogpt))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    shape = GPTConfig(
        block_size=options.context,
        vocab_size=50304,
        n_layer=8,
        n_head=8,
        n_embd=512,
        dropout=0.0,
        bias=False,
    )
    device = options.device
    raw = GPT(shape).to(device)
    optimizer = raw.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device)
    model = torch.compile(raw) if options.compile == "on" else raw
    source = _RandomBatches(options.batch, options.context)
    numbers = iter(range(10**9))

    def one_step() -> None:
        batch = source.batch(next(numbers))
        with torch.autocast(device, dtype=torch.bfloat16):
            _, loss = model(batch.input_ids.to(device), batch.labels.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return one_step


if __name__ == "__main__":
    main()
