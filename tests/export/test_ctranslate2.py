"""A model with plain rotary positions computes the same in CTranslate2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tallyformer.errors import ArtifactError
from tallyformer.export.other_engines import export_model
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams

from .conftest import SHAPES, SIZES

ctranslate2 = pytest.importorskip("ctranslate2", reason="pip install 'tallyformer[export]'")

ModelFolder = Callable[[str], Path]
PLAIN = [name for name, shape in SHAPES.items() if "rope_parameters" not in shape]


@pytest.mark.parametrize("shape", [*PLAIN, "stock llama"])
def test_greedy_text_is_that_of_the_model(
    shape: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = model_folder(shape)
    found = export_model(folder, tmp_path / "out", form="ctranslate2")
    assert found["cached_difference"] < 1e-4 * found["largest_logit"]
    llm = LLM.from_pretrained(folder)
    prompt = llm.tokenizer.encode("A bond pays")
    steps = SIZES["max_position_embeddings"] - len(prompt)
    wanted = llm.generate(prompt, SamplingParams(max_tokens=steps, temperature=0))[0].token_ids
    names = llm.tokenizer.spellings()
    generator = ctranslate2.Generator(str(tmp_path / "out"))
    (answer,) = generator.generate_batch(
        [[names[i] for i in prompt]],
        max_length=steps,
        sampling_topk=1,
        include_prompt_in_result=False,
    )
    assert [i for i in wanted if i != llm.tokenizer.eot_id] == answer.sequences_ids[0]


@pytest.mark.parametrize("shape", [*PLAIN, "stock llama"])
def test_int8_is_near_the_model_and_small(
    shape: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    found = export_model(model_folder(shape), tmp_path / "out", form="ctranslate2", dtype="int8")
    assert 1e-3 < found["rounding_difference"] < 0.25 * found["largest_logit"]
    whole = model_folder(shape) / "model.safetensors"
    assert (tmp_path / "out" / "model.bin").stat().st_size < 0.4 * whole.stat().st_size


def test_scaled_positions_are_refused_with_formats_that_have_them(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = model_folder("post-norm layernorm, scaled positions")
    with pytest.raises(ArtifactError, match=r"rope_type 'linear' .* Use --format onnx or gguf"):
        export_model(folder, tmp_path / "out", form="ctranslate2")
    assert not (tmp_path / "out").exists()
