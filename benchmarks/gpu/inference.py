"""Step 6: the engine on a GPU: tokens per second, time to the first token, launches per token.

    python benchmarks/gpu/inference.py --out inference.json [--rehearse]

Model and sampling are those of step 5. Subjects: the engine with CUDA graphs, the same with
`batch_invariant`, the engine without graphs, and transformers' `generate`. Tokens per second are of
whole calls with a short prompt; the first token is that of a prompt of 128, on its way to the host.
A part that fails is noted with its error, and the rest is measured; the exit status is then 1.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from generation import REHEARSAL as SMALL
from generation import Size, make_model
from measuring import interleaved, read_options, seconds_of, the_device, write_result
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.llm import LLM
from tallyformer.inference.ready_model import ReadyModel
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.torch_model import with_torch

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync")
"""What the host starts on the device: an event's name begins so."""


@dataclass(frozen=True)
class Work:
    """What is measured; the default is the real thing."""

    model: Size
    streams: tuple[int, ...] = (1, 256)
    prompt: int = 4
    tokens: int = 192
    long_prompt: int = 128
    rounds: int = 3


BARS = {"1": 2650, "256": 300_000}
"""Tokens per second of the engine that are wanted, by streams."""
FIRST_TOKEN_BAR = 0.002
"""Seconds."""


def main() -> None:
    options = read_options(__doc__)
    device = the_device(options.rehearse)
    work = Work(Size())
    if options.rehearse:
        work = Work(SMALL, streams=(1, 3), prompt=2, tokens=8, long_prompt=8, rounds=1)
    found = Found(options.out, device, work)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), work.model)
        llm = LLM.from_pretrained(folder, dtype="bfloat16", device=device, runner="torch")
        subjects = make_subjects(llm, found)
        measure(subjects, found, "seconds_to_first_token", (1, work.long_prompt, 1))
        for streams in work.streams:
            measure(subjects, found, "tokens_per_second", (streams, work.prompt, work.tokens))
        for name, generate in subjects.items():
            with found.failures(f"launches: {name}"):
                found.values["launches"][name] = launches_per_token(generate, work, device)
    raise SystemExit(int(bool(found.values["failed"])))


class Found:
    """What has been measured; written after each part, since a later one may fail or hang."""

    def __init__(self, path: Path, device: torch.device, work: Work) -> None:
        self.path, self.device, self.work = path, device, work
        # Models that may use CUDA graphs, by subject.
        self.with_graphs: dict[str, ReadyModel] = {}
        self.values: dict[str, Any] = {
            "tokens_per_second": {},
            "seconds_to_first_token": {},
            "launches": {},
            "cuda_graphs": {},
            "failed": {},
        }

    @contextlib.contextmanager
    def failures(self, part: str) -> Iterator[None]:
        """A part that fails is noted with its error, and the rest goes on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.values["failed"][part] = f"{type(error).__name__}: {error}"[:500]
        # Graphs are recorded as they are needed, and a fast number of a slow runner would mislead.
        used = {name: graphs_of(ready) for name, ready in self.with_graphs.items()}
        self.values["cuda_graphs"] = used
        write(self.path, self.device, self.work, self.values)


def graphs_of(ready: ReadyModel) -> str:
    """Whether every CUDA graph until now could be recorded, or why not."""
    return getattr(ready.runner, "problem", "the plain runner was taken") or "used"


def make_subjects(llm: LLM, found: Found) -> dict[str, Callable[..., None]]:
    """By name: generates so many tokens after each of some prompts; those that can be made."""
    model, tokenizer = llm.model, llm.tokenizer
    subjects: dict[str, Callable[..., None]] = {}
    for name, invariant in (("engine", False), ("engine, batch_invariant", True)):
        with found.failures(name):
            ready = with_torch(model, tokenizer, batch_invariant=invariant)
            found.with_graphs[name] = ready
            subjects[name] = answers_of(LLM(ready, tokenizer))
    with found.failures("engine without graphs"):
        runner = TorchRunner(model, tokenizer.vocab_size, slots=256)
        ready = with_torch(model, tokenizer, runner=runner)
        subjects["engine without graphs"] = answers_of(LLM(ready, tokenizer))

    def transformers(ids: list[list[int]], tokens: int) -> None:
        ids_BT = torch.tensor(ids, device=model.device)
        with torch.inference_mode():
            out = model.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                do_sample=True,
                top_k=50,
                top_p=0.9,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
            )
        assert out.shape[1] == len(ids[0]) + tokens

    return {**subjects, "transformers": transformers}


def answers_of(llm: LLM) -> Callable[..., None]:
    def generate(ids: list[list[int]], tokens: int) -> None:
        params = SamplingParams(max_tokens=tokens, top_k=50, top_p=0.9, seed=1, ignore_eos=True)
        assert all(len(out.token_ids) == tokens for out in llm.generate(ids, params))

    return generate


def prompts(streams: int, length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(streams)
    return torch.randint(256, (streams, length), generator=generator).tolist()


def measure(
    subjects: dict[str, Callable[..., None]], found: Found, key: str, shape: tuple[int, int, int]
) -> None:
    """Note seconds of each subject for so many streams, ids of a prompt, and tokens."""
    streams, length, tokens = shape
    ids = prompts(streams, length)
    part = f"{key}, {streams} streams"
    able: dict[str, Callable[[], float]] = {}
    for name, generate in subjects.items():
        with found.failures(f"{part}: {name}"):
            generate(ids, tokens)  # records graphs of this size
            able[name] = lambda g=generate: seconds_of(lambda: g(ids, tokens), found.device)  # type: ignore[misc]
    with found.failures(part):
        seconds = interleaved(able, found.work.rounds)
        found.values[f"seconds_{streams}_streams_{tokens}_tokens"] = seconds
        medians = {name: times["median"] for name, times in seconds.items()}
        if key == "tokens_per_second":
            speeds = {name: streams * tokens / median for name, median in medians.items()}
            found.values[key][str(streams)] = speeds
        else:
            found.values[key] = medians


def launches_per_token(
    generate: Callable[..., None], work: Work, device: torch.device
) -> dict[str, float]:
    """What the host starts on the device for one more token of one stream, by name; and `kernels`,
    all that then runs there, copies and what graphs start included."""
    counts, ran = [], []
    ids = prompts(1, work.prompt)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    few, many = work.tokens // 8, work.tokens // 4
    generate(ids, many)
    for tokens in (few, many):
        with profile(activities=activities) as profiler:
            generate(ids, tokens)
        events = profiler.events()
        names = [event.name for event in events if event.name.startswith(LAUNCHES)]
        counts.append(Counter(names))
        ran.append(sum(event.device_type == DeviceType.CUDA for event in events))
    kernels = (ran[1] - ran[0]) / (many - few)
    kinds = {name: (counts[1][name] - counts[0][name]) / (many - few) for name in counts[1]}
    found = {name: round(count, 2) for name, count in kinds.items()}
    return {**found, "all": sum(kinds.values()), "kernels": kernels}


def bars(found: dict[str, Any]) -> list[str]:
    """What was found, what is wanted, and whether that is met; and what `batch_invariant` costs."""
    speeds, first = found["tokens_per_second"], found["seconds_to_first_token"]
    lines = []
    for streams, bar in BARS.items():
        if speed := speeds.get(streams, {}).get("engine"):
            lines.append(f"{streams} streams: {speed:.4g} tokens/s, wanted {bar}: {speed >= bar}")
    if seconds := first.get("engine"):
        met = seconds <= FIRST_TOKEN_BAR
        lines.append(
            f"first token: {1e3 * seconds:.3g} ms, wanted {1e3 * FIRST_TOKEN_BAR:g}: {met}"
        )
    costs = {f"{s} streams": 1 / _cost(of) for s, of in speeds.items() if _cost(of)}
    costs |= {"first token": _cost(first)} if _cost(first) else {}
    lines += [f"batch_invariant, {what}: {cost:.3g} times as long" for what, cost in costs.items()]
    return lines


def _cost(of: dict[str, float]) -> float:
    """`batch_invariant` by the engine without it; 0 where one is not there."""
    if not {"engine", "engine, batch_invariant"} <= of.keys():
        return 0.0
    return of["engine, batch_invariant"] / of["engine"]


def write(path: Path, device: torch.device, work: Work, found: dict[str, Any]) -> None:
    """Write what has been measured so far."""
    lines = bars(found)
    lines += [
        f"{streams} streams: " + ", ".join(f"{n} {v:.4g} tokens/s" for n, v in speeds.items())
        for streams, speeds in found["tokens_per_second"].items()
    ]
    first = found["seconds_to_first_token"].items()
    lines.append("first token: " + ", ".join(f"{n} {1e3 * v:.3g} ms" for n, v in first))
    launches = found["launches"].items()
    lines.append("CUDA graphs: " + ", ".join(f"{n}: {v}" for n, v in found["cuda_graphs"].items()))
    lines.append("launches per token: " + ", ".join(f"{n} {v['all']:.3g}" for n, v in launches))
    lines.append("kernels per token: " + ", ".join(f"{n} {v['kernels']:.4g}" for n, v in launches))
    lines += [f"failed: {part}: {error}" for part, error in found["failed"].items()]
    values = {"prompt_tokens": work.prompt, "new_tokens": work.tokens}
    values |= {"long_prompt_tokens": work.long_prompt, **found, "summary": lines}
    write_result(path, "the engine on a GPU, bf16, beside transformers' generate", device, values)


if __name__ == "__main__":
    main()
