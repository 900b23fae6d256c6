"""Step 5: `LLM.generate` against transformers' `generate`, by batch size, in bf16.

    python benchmarks/gpu/generation.py --out generation.json [--rehearse]

Both have the same folder: tally-51m with random weights and a vocabulary of as many ids, since
neither changes the time. Both sample with top-k 50 and top-p 0.9 and end after as many tokens.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved, read_options, seconds_of, the_device, write_result

from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.runs.weights import save_model
from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.byte_level import byte_of_character


@dataclass(frozen=True)
class Size:
    """What is measured; the default is the real thing."""

    model: dict[str, Any] = field(default_factory=dict)
    vocabulary: int = 50260
    batches: tuple[int, ...] = (1, 32, 256)
    prompt: int = 32
    tokens: int = 64
    rounds: int = 3


REHEARSAL = Size(
    model={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
    },
    vocabulary=300,
    batches=(1, 3),
    prompt=4,
    tokens=4,
    rounds=1,
)


def main() -> None:
    options = read_options(__doc__)
    device = the_device(options.rehearse)
    size = REHEARSAL if options.rehearse else Size()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), size)
        llm = LLM.from_pretrained(folder, dtype="bfloat16", device=device, runner="torch")
        for batch in size.batches:
            found[str(batch)] = measure(llm, batch, size)
            write(options.out, device, size, found)  # what is measured is kept, come what may


def write(path: Path, device: torch.device, size: Size, found: dict[str, Any]) -> None:
    """Write what has been measured so far."""
    summary = [
        f"batch {batch}: "
        + ", ".join(f"{name} {speed['median']:.4g} tokens/s" for name, speed in speeds.items())
        for batch, speeds in found.items()
    ]
    what = "generated tokens per second, whole calls with prefill, bf16"
    values = {"prompt_tokens": size.prompt, "new_tokens": size.tokens}
    values |= {"tokens_per_second_by_batch": found, "summary": summary}
    write_result(path, what, device, values)


def measure(llm: LLM, batch: int, size: Size) -> dict[str, Any]:
    """Tokens per second of both at one batch size."""
    ids = torch.randint(256, (batch, size.prompt), generator=torch.Generator().manual_seed(batch))
    params = SamplingParams(max_tokens=size.tokens, top_k=50, top_p=0.9, seed=1, ignore_eos=True)
    sampling = {"top_k": 50, "top_p": 0.9}
    sampling |= {"max_new_tokens": size.tokens, "min_new_tokens": size.tokens}
    mask = torch.ones_like(ids).to(llm.device)
    counts: list[int] = []

    def ours() -> None:
        counts.append(sum(len(out.token_ids) for out in llm.generate(ids.tolist(), params)))

    def theirs() -> None:
        with torch.inference_mode():
            out = llm.model.generate(
                ids.to(llm.device), attention_mask=mask, do_sample=True, **sampling
            )
        counts.append(out.shape[0] * (out.shape[1] - size.prompt))

    def speed(generate: Any) -> float:
        seconds = seconds_of(generate, llm.model.device)
        return counts[-1] / seconds

    subjects = {"LLM.generate": ours, "transformers": theirs}
    for subject in subjects.values():
        subject()
    return interleaved({n: lambda s=s: speed(s) for n, s in subjects.items()}, size.rounds)


def make_model(folder: Path, size: Size) -> None:
    """A model with random weights and its tokenizer."""
    tokenizer = make_tokenizer(folder / "vocabulary", size.vocabulary)
    config = TallyFormerConfig(
        **{**size.model, "vocab_size": tokenizer.vocab_size, "dropout": 0.0},
        bos_token_id=tokenizer.eot_id,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=tokenizer.pad_id,
    )
    save_model(TallyFormerForCausalLM(config), tokenizer, folder, dropout=0.0)


def make_tokenizer(folder: Path, size: int) -> Tokenizer:
    """A vocabulary of so many ids: bytes, pairs of bytes, and the four control tokens."""
    characters = list(byte_of_character())
    pairs = list(itertools.islice(itertools.product(characters, repeat=2), size - 260))
    tokens = [*characters, *map("".join, pairs)]
    folder.mkdir(parents=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "".join(f"{a} {b}\n" for a, b in pairs)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    return Tokenizer.from_pretrained(folder)


if __name__ == "__main__":
    main()
