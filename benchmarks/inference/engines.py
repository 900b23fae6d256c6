"""One engine as a worker process: it loads a model, and times what it is asked to.

    python engines.py ENGINE MODEL --threads 2

ENGINE is a class below. Reads one JSON object a line, `{"do": "decode", "streams": 1, "position":
10, "steps": 50}` or `{"do": "first", "prompt": 128}`, and answers each with the seconds it took as
one JSON object. All sample with top-k 50 and top-p 0.9, each with its own sampler, and none stops
at an end-of-text. Prompts are random ids.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, Protocol

TOP_K, TOP_P = 50, 0.9
CONTEXT = 256
MOST_STREAMS = 64


class Worker(Protocol):
    """What is asked of an engine."""

    def decode(self, streams: int, position: int, steps: int) -> float:
        """Seconds for `steps` new ids of each stream, each after a prompt of `position` ids."""

    def first(self, prompt: int) -> float:
        """Seconds from a prompt of so many ids to its first new id."""


class Ours:
    """The engine of this package, with everything that `LLM` does for a request."""

    def __init__(self, folder: Path, threads: int, dtype: str | None, runner: str) -> None:
        from tallyformer.inference.engine.engine import Engine
        from tallyformer.tokenizer.tokenizer import Tokenizer

        tokenizer = Tokenizer.from_pretrained(folder)
        made: Any
        if runner == "native":
            from tallyformer.inference.native.runner import NativeRunner

            made = NativeRunner.from_folder(
                folder, vocab_size=tokenizer.vocab_size, dtype=dtype, threads=threads
            )
        else:
            import torch

            from tallyformer.inference.engine.torch_runner import TorchRunner
            from tallyformer.model.loading import load_model

            torch.set_num_threads(threads)
            made = TorchRunner(load_model(folder, dtype=dtype), tokenizer.vocab_size)
        self._engine = Engine(made, tokenizer, context=CONTEXT, eos_ids=[])

    def decode(self, streams: int, position: int, steps: int, skip: int = 0) -> float:
        """`skip` more ids are not timed: processors slow down for a while after a long prompt."""
        numbers = [self._add(position, skip + steps + 1) for _ in range(streams)]
        while self._engine.running < streams:
            self._engine.step()
        for _ in range(skip):
            self._engine.step()
        start = time.perf_counter()
        for _ in range(steps - 1):
            self._engine.step()
        seconds = time.perf_counter() - start
        for number in numbers:
            self._engine.abort(number)
        self._engine.step()
        return seconds * steps / (steps - 1)

    def first(self, prompt: int) -> float:
        number = self._add(prompt, 2)
        start = time.perf_counter()
        self._engine.step()
        seconds = time.perf_counter() - start
        self._engine.abort(number)
        self._engine.step()
        return seconds

    def _add(self, prompt: int, tokens: int) -> int:
        from tallyformer.inference.sampling_params import SamplingParams

        params = SamplingParams(
            max_tokens=tokens, top_k=TOP_K, top_p=TOP_P, ignore_eos=True, seed=1
        )
        return self._engine.add(_ids(prompt), params)[0]


class LlamaCpp:
    """llama.cpp through the functions of its C interface, its own sampler chain."""

    def __init__(self, file: Path, threads: int) -> None:
        import llama_cpp

        self._c = c = llama_cpp
        c.llama_log_set(_SILENT(c), None)
        c.llama_backend_init()
        model = c.llama_model_load_from_file(str(file).encode(), c.llama_model_default_params())
        params = c.llama_context_default_params()
        params.n_ctx = CONTEXT * MOST_STREAMS
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = MOST_STREAMS
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self._context = c.llama_init_from_model(model, params)
        self._memory = c.llama_get_memory(self._context)
        self._batch = c.llama_batch_init(512, 0, 1)
        self._sampler = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for step in (
            c.llama_sampler_init_top_k(TOP_K),
            c.llama_sampler_init_top_p(TOP_P, 1),
            c.llama_sampler_init_dist(1),
        ):
            c.llama_sampler_chain_add(self._sampler, step)

    def decode(self, streams: int, position: int, steps: int) -> float:
        last = [self._prefill(stream, position) for stream in range(streams)]
        start = time.perf_counter()
        for step in range(steps):
            self._compute([(s, position + step, last[s], True) for s in range(streams)])
            last = [self._sample(place) for place in range(streams)]
        seconds = time.perf_counter() - start
        self._c.llama_memory_clear(self._memory, False)
        return seconds

    def first(self, prompt: int) -> float:
        start = time.perf_counter()
        self._prefill(0, prompt)
        seconds = time.perf_counter() - start
        self._c.llama_memory_clear(self._memory, False)
        return seconds

    def _prefill(self, stream: int, prompt: int) -> int:
        ids = _ids(prompt)
        self._compute([(stream, i, id_, i == prompt - 1) for i, id_ in enumerate(ids)])
        return self._sample(-1)

    def _compute(self, parts: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(parts)
        for i, (stream, position, id_, wanted) in enumerate(parts):
            batch.token[i], batch.pos[i], batch.logits[i] = id_, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
        failed = self._c.llama_decode(self._context, batch)
        assert not failed, failed

    def _sample(self, place: int) -> int:
        return int(self._c.llama_sampler_sample(self._sampler, self._context, place))


def _SILENT(c: Any) -> Any:  # noqa: N802 - a C callback that must stay alive
    global _silent
    _silent = c.llama_log_callback(lambda level, text, data: None)
    return _silent


class CTranslate2:
    """CTranslate2's generator; time of n + 1 ids less that of one."""

    def __init__(self, folder: Path, threads: int, compute_type: str) -> None:
        import ctranslate2

        self._generator = ctranslate2.Generator(
            str(folder), device="cpu", intra_threads=threads, compute_type=compute_type
        )
        self._tokens = [f"t{i}" for i in range(100)]
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._tokens = vocabulary[100:5000]

    def decode(self, streams: int, position: int, steps: int) -> float:
        return self._seconds(streams, position, steps + 1) - self._seconds(streams, position, 1)

    def first(self, prompt: int) -> float:
        return self._seconds(1, prompt, 1)

    def _seconds(self, streams: int, prompt: int, tokens: int) -> float:
        prompts = [random.choices(self._tokens, k=prompt) for _ in range(streams)]
        start = time.perf_counter()
        self._generator.generate_batch(
            prompts,
            max_batch_size=0,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=TOP_K,
            sampling_topp=TOP_P,
            include_prompt_in_result=False,
        )
        return time.perf_counter() - start


class OnnxRuntime:
    """onnxruntime on an exported graph with its cache; NumPy chooses the ids."""

    def __init__(self, folder: Path, threads: int) -> None:
        import numpy as np
        import onnxruntime

        self._np = np
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = list(self._session.get_inputs())
        self._cache = [i.name for i in self._inputs if i.name.startswith("past_key_values")]
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._random = np.random.default_rng(0)

    def decode(self, streams: int, position: int, steps: int) -> float:
        logits, cache = self._run(self._prompt(streams, position), None, 0)
        last = self._choose(logits)
        start = time.perf_counter()
        for step in range(steps):
            logits, cache = self._run(last[:, None], cache, position + step)
            last = self._choose(logits)
        return time.perf_counter() - start

    def first(self, prompt: int) -> float:
        ids = self._prompt(1, prompt)
        start = time.perf_counter()
        logits, _ = self._run(ids, None, 0)
        self._choose(logits)
        return time.perf_counter() - start

    def _prompt(self, streams: int, prompt: int) -> Any:
        return self._np.array([_ids(prompt) for _ in range(streams)], self._np.int64)

    def _run(self, ids: Any, cache: Any, past: int) -> tuple[Any, Any]:
        np = self._np
        streams, new = ids.shape
        feeds: dict[str, Any] = {"input_ids": ids}
        for wanted in self._inputs:
            if wanted.name == "attention_mask":
                feeds[wanted.name] = np.ones((streams, past + new), np.int64)
            elif wanted.name == "position_ids":
                feeds[wanted.name] = np.tile(np.arange(past, past + new), (streams, 1))
            elif wanted.name == "num_logits_to_keep":
                feeds[wanted.name] = np.array(1, np.int64)
            elif wanted.name in self._cache:
                _, heads, _, size = wanted.shape
                empty = np.zeros((streams, heads, 0, size), np.float32)
                feeds[wanted.name] = empty if cache is None else cache[wanted.name]
        found = dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        presents = [name for name in self._outputs if name.startswith("present")]
        kept = dict(zip(self._cache, (found[name] for name in presents), strict=True))
        return found["logits"][:, -1], kept

    def _choose(self, logits: Any) -> Any:
        np = self._np
        ids = np.argpartition(logits, -TOP_K, axis=1)[:, -TOP_K:]
        top = np.take_along_axis(logits, ids, axis=1)
        order = np.argsort(-top, axis=1)
        ids, top = np.take_along_axis(ids, order, 1), np.take_along_axis(top, order, 1)
        weights = np.exp(top - top[:, :1])
        weights /= weights.sum(1, keepdims=True)
        sums = weights.cumsum(1)
        weights[(sums - weights) >= TOP_P] = 0
        sums = weights.cumsum(1)
        places = (sums < self._random.random((len(ids), 1)) * sums[:, -1:]).sum(1)
        return np.take_along_axis(ids, places[:, None], 1)[:, 0]


class Vllm:
    """vLLM's engine of its CPU build, in this process, without its prefix cache."""

    def __init__(self, folder: Path, threads: int, dtype: str) -> None:
        os.environ |= {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        from vllm import LLM, SamplingParams

        self._params = SamplingParams
        self._engine = LLM(
            str(folder),
            dtype=dtype,
            max_model_len=CONTEXT,
            max_num_seqs=MOST_STREAMS,
            enable_prefix_caching=False,
            disable_log_stats=True,
        ).llm_engine
        self._asked = 0

    def decode(self, streams: int, position: int, steps: int) -> float:
        names = [self._add(position, steps + 2) for _ in range(streams)]
        counts = dict.fromkeys(names, 0)
        while not all(counts.values()):
            self._step(counts)
        begun, start = sum(counts.values()), time.perf_counter()
        while sum(counts.values()) - begun < streams * (steps - 1):
            self._step(counts)
        seconds = time.perf_counter() - start
        while self._engine.has_unfinished_requests():
            self._engine.step()
        return seconds * steps / (steps - 1)

    def first(self, prompt: int) -> float:
        start = time.perf_counter()
        counts = {self._add(prompt, 1): 0}
        while not all(counts.values()):
            self._step(counts)
        return time.perf_counter() - start

    def _add(self, prompt: int, tokens: int) -> str:
        self._asked += 1
        name = str(self._asked)
        params = self._params(
            max_tokens=tokens, temperature=1.0, top_k=TOP_K, top_p=TOP_P, ignore_eos=True
        )
        self._engine.add_request(name, {"prompt_token_ids": _ids(prompt)}, params)
        return name

    def _step(self, counts: dict[str, int]) -> None:
        for output in self._engine.step():
            counts[output.request_id] = len(output.outputs[0].token_ids)


class Transformers:
    """`generate` of transformers, as a user calls it; time of n + 1 ids less that of one."""

    def __init__(self, folder: Path, threads: int, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._model.generation_config.eos_token_id = None

    def decode(self, streams: int, position: int, steps: int) -> float:
        return self._seconds(streams, position, steps + 1) - self._seconds(streams, position, 1)

    def first(self, prompt: int) -> float:
        return self._seconds(1, prompt, 1)

    def _seconds(self, streams: int, prompt: int, tokens: int) -> float:
        ids = self._torch.tensor([_ids(prompt) for _ in range(streams)])
        start = time.perf_counter()
        with self._torch.inference_mode():
            self._model.generate(
                input_ids=ids,
                attention_mask=self._torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=True,
                top_k=TOP_K,
                top_p=TOP_P,
                pad_token_id=0,
            )
        return time.perf_counter() - start


def _ids(count: int) -> list[int]:
    return [random.randrange(100, 50000) for _ in range(count)]


def _load(engine: str, model: Path, threads: int) -> Worker:
    name, _, kind = engine.partition(":")
    if name in ("native", "torch"):
        return Ours(model, threads, kind or None, name)
    if name == "llama.cpp":
        return LlamaCpp(model, threads)
    if name == "ctranslate2":
        return CTranslate2(model, threads, kind)
    if name == "onnxruntime":
        return OnnxRuntime(model, threads)
    if name == "vllm":
        return Vllm(model, threads, kind)
    assert name == "transformers", name
    return Transformers(model, threads, kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("engine", help="NAME or NAME:KIND")
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    random.seed(0)
    # What libraries print goes to the other stream.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = _load(options.engine, options.model, options.threads)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        do = asked.pop("do")
        seconds = getattr(worker, do)(**asked)
        print(json.dumps({"seconds": seconds, "peak_mb": _peak_mb()}), file=answers, flush=True)


def _peak_mb() -> float:
    """Not ru_maxrss, which a process inherits from the one that starts it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
