"""The optimizer step of tally-51m against nanoGPT's, both compiled, in bf16, on this machine.

    python benchmarks/train_step.py --nanogpt ../nanoGPT

nanoGPT (https://github.com/karpathy/nanoGPT) runs its own model, optimizer set-up and training
step at its nearest size: 8 layers, 8 heads, 512 wide, vocabulary 50,304, no dropout, no biases.
TallyFormer runs `training.step.Step`, the code of `tallyformer pretrain`, on tally-51m with packed
documents and their mask. Each trainer is a process of its own that is idle while the other works;
they take turns for several rounds, so that a busy machine slows both. A round's first step is not
timed. Memory is the largest resident size, over the whole life and after compiling.

With --before CHECKOUT the step of an earlier checkout takes its turns too, run by its own script
and sources.

With --share, matrix products are timed before and after the rounds, and what a step reaches is
given as a share of the most they reached. With --profile N, N more steps say where the time goes.

Writes benchmarks/results/<date>-train-step.json, or the file of --out.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import itertools
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

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

from measuring import spread

RESULTS = Path(__file__).parent / "results"
SHAPES = {
    "tally-51m": {"hidden": 512, "layers": 8, "heads": 8, "mlp": 2048, "vocabulary": 50260},
    "tiny": {"hidden": 32, "layers": 2, "heads": 2, "mlp": 128, "vocabulary": 500},
}
"""The second is for rehearsals of this script."""
DOCUMENT_TOKENS = 400
"""Mean length of the packed documents."""


def main() -> None:
    options = _options()
    if options.worker:
        _work(options)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    names = ["tallyformer"]
    names += ["before"] if options.before else []
    names += ["nanogpt"] if options.nanogpt else []
    workers = {name: _start(name, options) for name in names}
    ours = workers["tallyformer"]
    peaks = [_ask(ours, "peak")] if options.share else []
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            rounds[name].append(_ask(workers[name], f"steps {options.steps}"))
            print(f"round {number + 1}: {name} {rounds[name][-1]}", file=sys.stderr)
    report = _report(options, rounds)
    if options.share:
        report["share_of_peak"] = _shares(report, [*peaks, _ask(ours, "peak")])
    report["summary"] = _summary(report)
    _write(report, options)
    if options.profile:
        report["profile"] = _ask(ours, f"profile {options.profile}")
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    print(json.dumps(report, indent=2))
    _write(report, options)


def _write(report: dict[str, Any], options: argparse.Namespace) -> None:
    if options.write:
        kind = "train-step-gpu" if options.device == "cuda" else "train-step"
        path = options.out or RESULTS / f"{datetime.date.today().isoformat()}-{kind}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _summary(report: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("tallyformer", "before", "nanogpt"):
        if name not in report:
            continue
        if isinstance(report[name], str):
            lines.append(f"{name}: {report[name]}")
            continue
        speeds = report[name]["tokens_per_second_all"]
        share = report.get("share_of_peak", {}).get(name)
        line = f"{name}: {report[name]['tokens_per_second']:.4g} tokens/s"
        line += f" ({min(speeds):.4g} to {max(speeds):.4g})"
        lines.append(line + (f", {share:.1%} of the matrix peak" if share else ""))
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="checkout of karpathy/nanoGPT")
    parser.add_argument("--before", type=Path, help="an earlier checkout of this repository")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="tally-51m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument("--no-mask", action="store_true", help="attend across documents")
    parser.add_argument("--share", action="store_true", help="also the share of the matrix peak")
    parser.add_argument("--profile", type=int, default=0, help="profiled steps after the rounds")
    parser.add_argument("--out", type=Path, help="file of the result")
    parser.add_argument("--no-write", dest="write", action="store_false")
    parser.add_argument("--worker", choices=("tallyformer", "nanogpt"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _start(name: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    before = options.before.resolve() if name == "before" else None
    script = before / "benchmarks" / "train_step.py" if before else Path(__file__)
    command = [sys.executable, str(script), "--compile", options.compile]
    command += ["--worker", "tallyformer" if before else name]
    command += ["--batch", str(options.batch), "--context", str(options.context)]
    command += ["--threads", str(options.threads), "--device", options.device]
    command += ["--shape", options.shape]
    command += ["--nanogpt", str(options.nanogpt)] if name == "nanogpt" else []
    command += ["--no-mask"] if options.no_mask else []
    environment = {**os.environ, **({"PYTHONPATH": str(before / "src")} if before else {})}
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert worker.stdout is not None
    ready = worker.stdout.readline()
    assert ready.strip() == "ready", f"{name} did not start: {ready!r}"
    return worker


def _ask(worker: subprocess.Popen[str], what: str) -> dict[str, Any]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{what}\n")
    worker.stdin.flush()
    answer: dict[str, Any] = json.loads(worker.stdout.readline())
    return answer


def _report(options: argparse.Namespace, rounds: dict[str, Any]) -> dict[str, Any]:
    report: dict[str, Any] = {
        "what": f"tokens per second and memory of one bf16 training step, {options.shape}",
        "nanogpt": "not measured: no checkout of nanoGPT was given",
        "command": " ".join(["python", *sys.argv]).replace(f"{Path(__file__).parents[1]}/", ""),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
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
    for name, key in (("nanogpt", "ratio"), ("before", "ratio_to_before")):
        if name in rounds:
            report[key] = _ratio(report, rounds, name)
    if "before" in rounds:
        report["commits"] = {
            "before": _commit(options.before),
            "now": _commit(Path(__file__).parent),
        }
    return report


def _ratio(report: dict[str, Any], rounds: dict[str, Any], other: str) -> dict[str, float]:
    """Of tokens per second, round by round, and of memory."""
    ratios = [
        ours["tokens_per_second"] / theirs["tokens_per_second"]
        for ours, theirs in zip(rounds["tallyformer"], rounds[other], strict=True)
    ]
    memory = report["tallyformer"]["peak_memory_mb"] / report[other]["peak_memory_mb"]
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "memory": round(memory, 3),
    }


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _shares(report: dict[str, Any], peaks: list[dict[str, Any]]) -> dict[str, Any]:
    """What part of the matrix products' rate each trainer reaches, by tally-51m's FLOPs."""
    most = max(max(peak["flops"]["all"]) for peak in peaks)
    per_token = peaks[0]["flops_per_token"]
    names = [name for name in ("tallyformer", "nanogpt") if isinstance(report[name], dict)]
    return {
        "bf16_matrix_flops": spread([rate for peak in peaks for rate in peak["flops"]["all"]]),
        "flops_per_token": per_token,
        **{name: report[name]["tokens_per_second"] * per_token / most for name in names},
    }


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
        what, *number = line.split()
        with contextlib.redirect_stdout(sys.stderr):
            if what == "peak":
                answer = _peak(options)
            elif what == "profile":
                answer = _profile(options, step, int(*number))
            else:
                answer = _timed(options, step, int(*number))
                answer["peak_memory_mb"] = peak = max(peak, answer["steady_memory_mb"])
        print(json.dumps(answer), flush=True)


def _timed(options: argparse.Namespace, step: Callable[[], None], count: int) -> dict[str, Any]:
    steady = _Memory(options.device)
    step()
    steady.wait()
    start = time.perf_counter()
    for _ in range(count):
        step()
    steady.wait()
    seconds = (time.perf_counter() - start) / count
    return {
        "tokens_per_second": round(options.batch * options.context / seconds, 1),
        "steady_memory_mb": round(steady.megabytes(), 1),
    }


def _peak(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from peak import matrix_flops

    from tallyformer.model.flops import flops_per_token

    rates = matrix_flops(torch.device(options.device), torch.bfloat16)
    per_token = flops_per_token(_config(options), options.context, backward=True)
    return {"flops": rates, "flops_per_token": per_token}


def _profile(options: argparse.Namespace, step: Callable[[], None], count: int) -> dict[str, Any]:
    import torch
    from kernels import profiled

    return profiled(step, count, torch.device(options.device))


def _config(options: argparse.Namespace) -> Any:
    from tallyformer.model.configuration_tallyformer import TallyFormerConfig

    shape = SHAPES[options.shape]
    return TallyFormerConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["mlp"],
        max_position_embeddings=options.context,
        dropout=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )


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

    def __init__(self, batch: int, context: int, vocabulary: int):
        self._shape = (batch, context)
        self._vocabulary = vocabulary
        self.batches_per_epoch = 1_000_000
        self.tokens_per_batch = batch * context

    def batch(self, index: int) -> Any:
        import torch

        from tallyformer.data.batch import Batch

        rows, context = self._shape
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(self._vocabulary, (rows, context + 1), generator=generator)
        starts = torch.rand(rows, context, generator=generator) < 1 / DOCUMENT_TOKENS
        return Batch(
            ids[:, :-1].contiguous(),
            ids[:, 1:].contiguous(),
            starts.cumsum(1, dtype=torch.int32),
        )

    def documents(self, index: int) -> list[str]:
        return [f"random {index}"]


def _source(options: argparse.Namespace) -> _RandomBatches:
    return _RandomBatches(options.batch, options.context, SHAPES[options.shape]["vocabulary"])


def _tallyformer(options: argparse.Namespace) -> Callable[[], None]:
    import torch

    from tallyformer.config.training import PretrainSection
    from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
    from tallyformer.training.compiling import compile_blocks
    from tallyformer.training.losses import NextTokenLoss
    from tallyformer.training.micro_batch import Placement
    from tallyformer.training.optimizers import build_optimizer
    from tallyformer.training.precision import choose_precision
    from tallyformer.training.prefetch import Prefetch
    from tallyformer.training.step import Step

    device = torch.device(options.device)
    section = PretrainSection(steps=1, micro_batch=options.batch, gradient_accumulation=1)
    compiled = options.compile == "on"
    model = TallyFormerForCausalLM(_config(options)).to(device).train()
    if compiled:
        compile_blocks(model)
    source = _source(options)
    placement = Placement(device, attend_across_documents=options.no_mask)
    step = Step(
        loss=NextTokenLoss(model, section.z_loss, compiled=compiled),
        batches=Prefetch(
            lambda number: placement.prepare(source.batch(number)),
            ahead=1 if options.device == "cuda" else 0,
        ),
        optimizer=build_optimizer(model, section.optimizer),
        micro_batches=1,
        clip_norm=section.optimizer.clip_norm,
        precision=choose_precision("bf16", device),
        placement=placement,
    )
    numbers = itertools.count()

    def one_step() -> None:
        step.run(next(numbers), 1e-4, lambda: False)

    return one_step


def _nanogpt(options: argparse.Namespace) -> Callable[[], None]:
    import torch

    sys.path.insert(0, str(options.nanogpt))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    ours = SHAPES[options.shape]
    shape = GPTConfig(
        block_size=options.context,
        vocab_size=-(-ours["vocabulary"] // 64) * 64,
        n_layer=ours["layers"],
        n_head=ours["heads"],
        n_embd=ours["hidden"],
        dropout=0.0,
        bias=False,
    )
    device = options.device
    raw = GPT(shape).to(device)
    optimizer = raw.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device)
    model = torch.compile(raw) if options.compile == "on" else raw
    source = _source(options)
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
