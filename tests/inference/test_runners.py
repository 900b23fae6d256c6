"""Native computes what it can, torch the rest, and it is said which and why."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from tallyformer.errors import ArtifactError, TallyFormerError, UsageError
from tallyformer.inference.llm import LLM
from tallyformer.inference.native.available import available
from tallyformer.inference.runners import choose_runner
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device_here import may_have_gpu
from tallyformer.packages import EXTRAS
from tallyformer.tokenizer.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
with_native = pytest.mark.skipif(available() is not None, reason="no native library here")


@pytest.fixture(params=["tally", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    source = request.getfixturevalue(f"{request.param}_folder")
    return Path(shutil.copytree(source, tmp_path / "model"))


@pytest.fixture
def gpt2_folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=tokenizer.vocab_size, **sizes))
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@with_native
def test_native_is_taken_on_a_cpu_and_answers_as_torch_does(folder: Path) -> None:
    native = LLM.from_pretrained(folder, device="cpu")
    plain = LLM.from_pretrained(folder, device="cpu", runner="torch")

    assert (native.runner_name, plain.runner_name) == ("native", "torch")
    assert native.device == plain.device == "cpu"
    assert native.dtype == plain.dtype == "float32"
    for name in ("context_length", "eos_ids", "default_params"):
        assert getattr(native, name) == getattr(plain, name)
    prompts = ["A bond", "Revenue minus cost is", ""]
    assert native.generate(prompts, GREEDY) == plain.generate(prompts, GREEDY)
    seeded = SamplingParams(seed=3, max_tokens=20)
    assert native.generate(prompts, seeded) == plain.generate(prompts, seeded)
    assert native.chat("What is profit?", GREEDY) == plain.chat("What is profit?", GREEDY)


@with_native
@pytest.mark.parametrize(
    "says",
    [
        {"eos_token_id": [5, 6]},
        {"eos_token_id": None},
        {"do_sample": True, "temperature": 0.5, "top_k": 7, "max_new_tokens": 3},
        {"do_sample": False},
        None,
    ],
)
def test_both_runners_read_the_same_settings(folder: Path, says: dict[str, Any] | None) -> None:
    file = folder / "generation_config.json"
    if says is None:
        file.unlink()
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), **says}))

    native, plain = (LLM.from_pretrained(folder, runner=name) for name in ("native", "torch"))

    assert native.eos_ids == plain.eos_ids
    assert native.default_params == plain.default_params


@with_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_every_number_format_of_native_answers(folder: Path, dtype: str) -> None:
    llm = LLM.from_pretrained(folder, dtype=dtype)

    assert (llm.runner_name, llm.dtype) == ("native", dtype)
    assert llm.generate("A bond", GREEDY)[0].finish_reason == "length"


def change_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def add_tensor(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), "more": torch.zeros(1)}, file, {"format": "pt"})


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "asked", "reason"),
    [
        (change_config(model_type="mamba"), {}, "model_type: 'mamba'"),
        (change_config(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), {}, "'dynamic'"),
        (add_tensor, {}, "no place for the tensor more"),
        (cut_weights, {}, r"model\.safetensors: cannot be read"),
        (nothing, {"device": "cuda"}, "device cuda"),
        (nothing, {"device": torch.device("cuda", 1)}, "device cuda:1"),
        (nothing, {"dtype": torch.float16}, "float16"),
    ],
)
def test_what_native_cannot_compute_goes_to_torch_with_the_reason(
    folder: Path, change: Callable[[Path], None], asked: dict[str, Any], reason: str
) -> None:
    change(folder)

    chosen = choose_runner(folder, **asked)

    assert chosen.name == "torch"
    assert re.search(f"^native cannot: .*{reason}", chosen.why)
    with pytest.raises(TallyFormerError, match=reason) as caught:
        choose_runner(folder, runner="native", **asked)
    told = str(caught.value)
    assert "\n" not in told
    # Of damage, another runner is no cure.
    helps = "native cannot compute" in told and told.endswith(" Use 'torch'")
    assert helps == (not isinstance(caught.value, ArtifactError))


def test_another_kind_of_model_is_answered_by_torch(gpt2_folder: Path) -> None:
    llm = LLM.from_pretrained(gpt2_folder, device="cpu")

    assert llm.runner_name == "torch"
    assert llm.generate("A bond", GREEDY)[0].finish_reason == "length"
    with pytest.raises(UsageError, match=r"dtype: 'int8' needs the native runner.*gpt2"):
        LLM.from_pretrained(gpt2_folder, device="cpu", dtype="int8")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"runner": "fast"}, "runner: 'fast' is unknown. Use one of: native, torch"),
        ({"runner": "torch", "dtype": "int8"}, "dtype: 'int8' is unknown. Use one of: float32"),
        ({"runner": "native", "dtype": "float16"}, "dtype: 'float16' is unknown. Use one of"),
        ({"dtype": "int3"}, "dtype: 'int3' is unknown"),
    ],
)
def test_what_no_runner_knows_is_refused(
    tally_folder: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        choose_runner(tally_folder, **asked)


@with_native
def test_the_native_runner_has_no_transformers_model(tally_folder: Path) -> None:
    llm = LLM.from_pretrained(tally_folder, device="cpu", runner="native")

    with pytest.raises(UsageError, match="Load the folder with runner='torch'"):
        _ = llm.model


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), False),
        (("null", "tty0"), False),
        (("nvidia0",), True),
        (("kfd",), True),
        (("dxg",), True),
    ],
)
def test_a_gpus_driver_is_seen_without_torch(
    names: tuple[str, ...], expected: bool, tmp_path: Path
) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems ask torch")
    for name in names:
        (tmp_path / name).touch()

    assert may_have_gpu(tmp_path) is expected


@pytest.mark.gpu
@with_native
def test_a_gpu_is_taken_unless_native_is_asked_for(tally_folder: Path, gpu: torch.device) -> None:
    assert choose_runner(tally_folder).name == ("native" if gpu.type == "cpu" else "torch")
    assert choose_runner(tally_folder, runner="native").name == "native"
    assert choose_runner(tally_folder, dtype="int8").name == "native"


_ALONE = """
import sys
for name in {absent!r}:
    sys.modules[name] = None  # as if it were not installed
from tallyformer.cli.main import main
main(sys.argv[1:])
"""


def without(
    absent: tuple[str, ...], *args: object, stdin: str = "", env: dict[str, str] | None = None
) -> Any:
    """`tallyformer ARGS` in a process that cannot import some packages."""
    return subprocess.run(
        [sys.executable, "-c", _ALONE.format(absent=absent), *map(str, args)],
        input=stdin,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )


NOT_FOR_SERVING = (*(module for extra in EXTRAS.values() for module in extra), "pandas")


@with_native
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_answering_on_a_cpu_imports_neither_torch_nor_transformers(
    command: str, folder: Path
) -> None:
    wanted = LLM.from_pretrained(folder, runner="torch", device="cpu")

    done = without(
        NOT_FOR_SERVING,
        *(command, "--model", folder, "--temperature", 0, "--max-tokens", 9, "--verbose"),
        stdin="Profit?\n",
    )

    assert done.returncode == 0, done.stderr
    params = SamplingParams(temperature=0, max_tokens=9)
    if command == "generate":
        assert done.stdout == wanted.generate("Profit?", params)[0].text + "\n"
    else:
        assert done.stdout.strip()
    assert "runner: native (" in done.stderr


def test_without_torch_what_only_torch_computes_says_how_to_get_it(gpt2_folder: Path) -> None:
    done = without(NOT_FOR_SERVING, "generate", "--model", gpt2_folder, "--prompt", "x")

    assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
    assert "cannot be computed without torch (model_type: 'gpt2'" in done.stderr
    assert "pip install 'tallyformer[train]'" in done.stderr
    assert not done.stdout


def test_without_torch_damage_is_damage(tally_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tally_folder, tmp_path / "model"))
    cut_weights(folder)

    done = without(NOT_FOR_SERVING, "generate", "--model", folder, "--prompt", "x")

    assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
    assert "model.safetensors: cannot be read" in done.stderr and "pip" not in done.stderr


def test_a_folder_that_is_not_there_is_told_in_the_same_words_without_torch(
    tmp_path: Path,
) -> None:
    done = without(NOT_FOR_SERVING, "chat", "--model", tmp_path / "no")

    assert done.returncode == 3 and "no such model folder" in done.stderr
    with pytest.raises(ArtifactError, match="no such model folder"):
        LLM.from_pretrained(tmp_path / "no", runner="torch")


def test_without_a_compiler_torch_answers_and_a_line_says_how_to_get_the_fast_one(
    tally_folder: Path, tmp_path: Path
) -> None:
    # Nothing was built into this cache, no compiler is in the path, nor is the one from Python.
    env = {"TALLYFORMER_CACHE": str(tmp_path), "PATH": str(tmp_path), "CXX": ""}
    options = ("generate", "--model", tally_folder, "--prompt", "A bond", "--temperature", 0)

    done = without(("ziglang",), *options, "--device", "cpu", env=env)

    plain = LLM.from_pretrained(tally_folder, device="cpu", runner="torch")
    wanted = plain.generate("A bond", SamplingParams(temperature=0))[0].text
    assert (done.returncode, done.stdout) == (0, wanted + "\n"), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "runner: torch (native cannot: no C++ compiler was found" in done.stderr
    assert "Install a C++ compiler" in done.stderr


def test_without_compiler_and_torch_the_line_says_what_helps(
    tally_folder: Path, tmp_path: Path
) -> None:
    env = {"TALLYFORMER_CACHE": str(tmp_path), "PATH": str(tmp_path), "CXX": ""}

    done = without(
        ("ziglang", *NOT_FOR_SERVING), "generate", "--model", tally_folder, "--prompt", "x", env=env
    )

    assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
    assert "Install a C++ compiler" in done.stderr and "tallyformer[train]" in done.stderr


@with_native
def test_damage_is_told_as_it_is_where_native_is_asked_for(folder: Path) -> None:
    """Another runner would not help."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=r"model\.safetensors") as caught:
        LLM.from_pretrained(folder, runner="native")
    assert "torch" not in str(caught.value)
