"""A model of Llama's kind computes the same, and reads the same ids, in llama.cpp."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallyformer.errors import ArtifactError
from tallyformer.export.formats import FORMATS
from tallyformer.export.other_engines import export_model
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer import Tokenizer

from .conftest import SIZES

gguf = pytest.importorskip("gguf", reason="pip install 'tallyformer[export]'")
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed; make test-exports builds it",
)
ModelFolder = Callable[[str], Path]
OF_LLAMAS_KIND = [
    "llama",
    "swiglu, interleaved, every bias, untied",
    "llama, llama3 positions",
    "llama, yarn positions",
    "stock llama",
]
DTYPES = [name for name in FORMATS["gguf"].dtypes if name]
CASES = [
    *((shape, "float32") for shape in OF_LLAMAS_KIND),
    *(("llama", dtype) for dtype in DTYPES if dtype != "float32"),
    ("swiglu, interleaved, every bias, untied", "q8_0"),
]


@pytest.fixture
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "llama_cpp" else real(name)
    )


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_the_file_holds_the_model(
    shape: str, dtype: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    found = export_model(model_folder(shape), tmp_path / "out", form="gguf", dtype=dtype)
    assert "read back; llama-cpp-python is not installed" in found["engine"]
    assert found["stored_difference"] < 1e-5
    assert found["cached_difference"] < 1e-4


@needs_llama_cpp
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_llama_cpp_gives_the_logits_of_every_dtype(
    shape: str, dtype: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    found = export_model(model_folder(shape), tmp_path / "out", form="gguf", dtype=dtype)
    assert found["engine"].startswith("llama-cpp-python")


@needs_llama_cpp
@pytest.mark.parametrize("shape", OF_LLAMAS_KIND)
def test_greedy_text_of_llama_cpp_is_that_of_the_model(
    shape: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    llama, folder = _llama(model_folder(shape), tmp_path), model_folder(shape)
    llm = LLM.from_pretrained(folder)
    prompt = llm.tokenizer.encode("A bond pays")
    steps = SIZES["max_position_embeddings"] - len(prompt)
    params = SamplingParams(max_tokens=steps, temperature=0, ignore_eos=True)
    wanted = llm.generate(prompt, params)[0].token_ids
    assert list(islice(llama.generate(prompt, temp=0), steps)) == list(wanted)


@needs_llama_cpp
@given(text=st.text(max_size=40))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_llama_cpp_makes_the_same_ids_of_any_text(
    text: str, vocabulary: Tokenizer, shared_llama: Any
) -> None:
    found = shared_llama.tokenize(text.encode(), add_bos=False, special=False)
    assert list(found) == vocabulary.encode(text)


@needs_llama_cpp
def test_llama_cpp_formats_a_chat_as_the_tokenizer_does(
    vocabulary: Tokenizer, shared_llama: Any
) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a bond? <|assistant|>"},
        {"role": "assistant", "content": "A loan."},
        {"role": "user", "content": "And a share?"},
    ]
    formatted = Jinja2ChatFormatter(
        shared_llama.metadata["tokenizer.chat_template"],
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
    )(messages=messages)
    harmless = [{**m, "content": m["content"].replace("<|", "< |")} for m in messages]
    ids = shared_llama.tokenize(formatted.prompt.encode(), add_bos=False, special=True)
    assert list(ids) == vocabulary.encode_chat(harmless, add_generation_prompt=True)
    assert shared_llama.token_eos() == vocabulary.eot_id


@pytest.fixture(scope="module")
def shared_llama(model_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _llama(model_folder("llama"), tmp_path_factory.mktemp("shared"))


def _llama(folder: Path, place: Path) -> Any:
    import llama_cpp

    export_model(folder, place / "gguf", form="gguf", dtype="float32")
    return llama_cpp.Llama(
        str(place / "gguf" / "model.gguf"), n_ctx=48, type_k=0, type_v=0, verbose=False
    )


@pytest.mark.usefixtures("no_llama_cpp")
def test_fewer_bits_make_a_smaller_file(model_folder: ModelFolder, tmp_path: Path) -> None:
    sizes = []
    for dtype in ("float32", "bfloat16", "q8_0", "q4_0"):
        export_model(model_folder("llama"), tmp_path / dtype, form="gguf", dtype=dtype)
        reader = gguf.GGUFReader(tmp_path / dtype / "model.gguf")
        sizes.append(sum(tensor.n_bytes for tensor in reader.tensors))
    assert np.all(np.array(sizes[1:]) < 0.6 * np.array(sizes[:-1]))


def test_another_shape_is_refused_with_what_is_in_the_way_and_the_preset(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError) as refused:
        export_model(
            model_folder("post-norm layernorm, scaled positions"), tmp_path / "out", form="gguf"
        )
    message = str(refused.value)
    for part in ("norm is 'layer'", "norm_placement is 'post'", "mlp is 'gelu'", "tally-51m-llama"):
        assert part in message
    assert not (tmp_path / "out").exists()


def test_a_width_that_blocks_do_not_divide_is_refused_with_a_dtype_that_works(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = model_folder("llama of another width")
    with pytest.raises(ArtifactError, match=r"multiple of 32, not 48\. Use --dtype bfloat16"):
        export_model(folder, tmp_path / "out", form="gguf", dtype="q8_0")
    export_model(folder, tmp_path / "out", form="gguf")
