"""Step 6: the engine on a GPU: tokens per second, time to the first token, launches per token.

    python benchmarks/gpu/inference.py --out inference.json [--rehearse]

Model and sampling are those of step 5. Subjects: the engine with CUDA graphs, the same with
`batch_invariant`, the engine without graphs, and transformers' `generate`. Tokens per second are of
whole calls with a short prompt; the first token is that of a prompt of 128, on its way to the host.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from generation import REHEARSAL as SMALL
from generation import Size, make_model
from measuring import interleaved, read_options, seconds_of, the_device, write_result
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


def main() -> None:
    options = read_options(__doc__)
    device = the_device(options.rehearse)
    work = Work(Size())
    if options.rehearse:
        work = Work(SMALL, streams=(1, 3), prompt=2, tokens=4, long_prompt=8, rounds=1)
    found: dict[str, Any] = {"tokens_per_second": {}, "seconds_to_first_token": {}, "launches": {}}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), work.model)
        llm = LLM.from_pretrained(folder, dtype="bfloat16", device=device, runner="torch")
        fast = with_torch(llm.model, llm.tokenizer)
        invariant = with_torch(llm.model, llm.tokenizer, batch_invariant=True)
        subjects = make_subjects(llm, fast, invariant)
        for name, generate in subjects.items():
            found["launches"][name] = launches_per_token(generate, work, device)
        for key, streams, prompt, tokens in [
            ("seconds_to_first_token", 1, work.long_prompt, 1),
            *(("tokens_per_second", streams, work.prompt, work.tokens) for streams in work.streams),
        ]:
            seconds = measure(subjects, (streams, prompt, tokens), work.rounds, device)
            for name, times in seconds.items():
                value = times["median"]
                if key == "tokens_per_second":
                    found[key].setdefault(str(streams), {})[name] = streams * tokens / value
                else:
                    found[key][name] = value
            found[f"seconds_{streams}_streams_{tokens}_tokens"] = seconds
            # A fast number of a slow runner would mislead.
            found["cuda_graphs"] = {
                "engine": graphs_of(fast),
                "batch_invariant": graphs_of(invariant),
            }
            write(options.out, device, work, found)  # what is measured is kept, come what may


def graphs_of(ready: ReadyModel) -> str:
    """Whether CUDA graphs were used, or why not."""
    return getattr(ready.runner, "problem", "the plain runner was taken") or "used"


def make_subjects(
    llm: LLM, fast: ReadyModel, invariant: ReadyModel
) -> dict[str, Callable[..., None]]:
    """By name: generates so many tokens after each of some prompts."""
    model, tokenizer = llm.model, llm.tokenizer
    plain = dataclasses.replace(fast, runner=TorchRunner(model, tokenizer.vocab_size, slots=256))

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

    return {
        "engine": answers_of(LLM(fast, tokenizer)),
        "engine, batch_invariant": answers_of(LLM(invariant, tokenizer)),
        "engine without graphs": answers_of(LLM(plain, tokenizer)),
        "transformers": transformers,
    }


def answers_of(llm: LLM) -> Callable[..., None]:
    def generate(ids: list[list[int]], tokens: int) -> None:
        params = SamplingParams(max_tokens=tokens, top_k=50, top_p=0.9, seed=1, ignore_eos=True)
        assert all(len(out.token_ids) == tokens for out in llm.generate(ids, params))

    return generate


def prompts(streams: int, length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(streams)
    return torch.randint(256, (streams, length), generator=generator).tolist()


def measure(
    subjects: dict[str, Callable[..., None]],
    shape: tuple[int, int, int],
    rounds: int,
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """Seconds of each subject for so many streams, ids of a prompt, and tokens."""
    streams, length, tokens = shape
    ids = prompts(streams, length)
    for generate in subjects.values():
        generate(ids, tokens)  # records graphs of this size
    return interleaved(
        {n: lambda g=g: seconds_of(lambda: g(ids, tokens), device) for n, g in subjects.items()},
        rounds,
    )


def launches_per_token(
    generate: Callable[..., None], work: Work, device: torch.device
) -> dict[str, float]:
    """What the host starts on the device for one more token of one stream, by name."""
    counts = []
    ids = prompts(1, work.prompt)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    few, many = work.tokens // 4, work.tokens // 2
    generate(ids, many)
    for tokens in (few, many):
        with profile(activities=activities) as profiler:
            generate(ids, tokens)
        names = (event.name for event in profiler.events() if event.name.startswith(LAUNCHES))
        counts.append(Counter(names))
    kinds = {name: (counts[1][name] - counts[0][name]) / (many - few) for name in counts[1]}
    return {**{name: round(count, 2) for name, count in kinds.items()}, "all": sum(kinds.values())}


def write(path: Path, device: torch.device, work: Work, found: dict[str, Any]) -> None:
    """Write what has been measured so far."""
    lines = [
        f"{streams} streams: " + ", ".join(f"{n} {v:.4g} tokens/s" for n, v in speeds.items())
        for streams, speeds in found["tokens_per_second"].items()
    ]
    first = found["seconds_to_first_token"].items()
    lines.append("first token: " + ", ".join(f"{n} {1e3 * v:.3g} ms" for n, v in first))
    launches = found["launches"].items()
    lines.append("CUDA graphs: " + ", ".join(f"{n}: {v}" for n, v in found["cuda_graphs"].items()))
    lines.append("launches per token: " + ", ".join(f"{n} {v['all']:.3g}" for n, v in launches))
    values = {"prompt_tokens": work.prompt, "new_tokens": work.tokens}
    values |= {"long_prompt_tokens": work.long_prompt, **found, "summary": lines}
    write_result(path, "the engine on a GPU, bf16, beside transformers' generate", device, values)


if __name__ == "__main__":
    main()
