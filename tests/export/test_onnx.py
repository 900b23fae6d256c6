"""A model of any shape computes the same in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.export.decoder import Source, read_decoder
from tallyformer.export.other_engines import export_model
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.loading import load_model
from tallyformer.tokenizer import Tokenizer

from .conftest import SHAPES, SIZES

pytest.importorskip("onnx", reason="pip install 'tallyformer[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'tallyformer[export]'")

ModelFolder = Callable[[str], Path]
EVERY = [*SHAPES, "stock llama"]


def _session(folder: Path) -> Any:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def _step(
    session: Any, ids_BT: np.ndarray, mask_BS: np.ndarray, past: list[np.ndarray], keep: int = 0
) -> list[np.ndarray]:
    positions_BS = np.maximum(mask_BS.cumsum(axis=1) - 1, 0)
    names = [value.name for value in session.get_inputs() if value.name.startswith("past")]
    feed = {
        "input_ids": ids_BT,
        "attention_mask": mask_BS,
        "position_ids": positions_BS[:, -ids_BT.shape[1] :],
        "num_logits_to_keep": np.array(keep),
        **dict(zip(names, past, strict=True)),
    }
    found: list[np.ndarray] = session.run(None, feed)
    return found


def _empty(session: Any, rows: int) -> list[np.ndarray]:
    caches = [value for value in session.get_inputs() if value.name.startswith("past")]
    return [np.zeros((rows, v.shape[1], 0, v.shape[3]), np.float32) for v in caches]


@pytest.mark.parametrize("shape", EVERY)
def test_greedy_text_is_token_by_token_that_of_the_model(
    shape: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = model_folder(shape)
    export_model(folder, tmp_path / "onnx", form="onnx")
    llm, session = LLM.from_pretrained(folder), _session(tmp_path / "onnx")
    prompt = llm.tokenizer.encode("A bond pays")
    steps = SIZES["max_position_embeddings"] - len(prompt)
    wanted = llm.generate(prompt, SamplingParams(max_tokens=steps, temperature=0, ignore_eos=True))[
        0
    ].token_ids
    fresh, past, ids = prompt, _empty(session, 1), []
    for step in range(steps):
        mask = np.ones((1, len(prompt) + step), np.int64)
        logits, *past = _step(session, np.array([fresh]), mask, past, keep=1)
        assert logits.shape == (1, 1, llm.tokenizer.vocab_size)
        fresh = [int(logits[0, -1].argmax())]
        ids += fresh
    assert ids == list(wanted)


@pytest.mark.parametrize("shape", EVERY)
def test_rows_of_a_batch_do_not_see_padding_nor_each_other(
    shape: str, model_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = model_folder(shape)
    export_model(folder, tmp_path / "onnx", form="onnx")
    model, session = load_model(folder, dtype="float32"), _session(tmp_path / "onnx")
    rows = [[5, 9, 200], [7, 8, 9, 10, 11, 12, 13]]
    longest = max(map(len, rows))
    ids = np.array([[0] * (longest - len(row)) + row for row in rows])
    mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    _, *past = _step(session, ids[:, :4], mask[:, :4], _empty(session, 2))
    logits, *past = _step(session, ids[:, 4:], mask, past)
    assert past[0].shape[2] == longest
    for number, row in enumerate(rows):
        wanted = model(torch.tensor([row])).logits[0, -3:].detach().numpy()
        np.testing.assert_allclose(logits[number], wanted, atol=2e-4)


def test_int8_is_near_the_model_and_small(model_folder: ModelFolder, tmp_path: Path) -> None:
    for shape in EVERY:
        found = export_model(
            model_folder(shape), tmp_path / shape / "onnx", form="onnx", dtype="int8"
        )
        assert 1e-3 < found["rounding_difference"] < 0.25 * found["largest_logit"]
    folder = model_folder("llama")
    export_model(folder, tmp_path / "float32", form="onnx")
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("float32", "llama/onnx")]
    assert sizes[1] < 0.4 * sizes[0]


def test_the_folder_has_the_tokenizer_and_is_signed(
    model_folder: ModelFolder, vocabulary: Tokenizer, tmp_path: Path
) -> None:
    export_model(model_folder("tally"), tmp_path / "onnx", form="onnx")
    assert Tokenizer.from_pretrained(tmp_path / "onnx").fingerprint == vocabulary.fingerprint
    check_model_folder(tmp_path / "onnx")


def test_weights_that_do_not_fit_into_one_file_lie_beside_it(
    model_folder: ModelFolder, vocabulary: Tokenizer, tmp_path: Path
) -> None:
    from tallyformer.export import onnx

    model = load_model(model_folder("tally"), dtype="float32")
    folder = model_folder("tally")
    source = Source(folder, model, vocabulary, read_decoder(folder, fix=""))
    onnx.write(source, tmp_path, dtype="float32", largest=100_000)
    assert (tmp_path / onnx.MODEL).stat().st_size < 100_000
    ids = np.arange(4, 20)
    wanted = model(torch.from_numpy(ids)[None]).logits[0].detach().numpy()
    np.testing.assert_allclose(onnx.load(tmp_path, source).logits(ids), wanted, atol=2e-4)
