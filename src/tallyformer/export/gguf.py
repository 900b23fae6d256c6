"""GGUF: writing a model of Llama's kind, and running it in llama.cpp through llama-cpp-python.

llama.cpp's architecture `llama` has RMSNorm before each half and SwiGLU, with or without biases,
and rotates neighbouring channels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tallyformer.errors import ArtifactError
from tallyformer.export.decoder import Layer, Source
from tallyformer.export.engine_check import OtherEngine, Tolerance
from tallyformer.export.gguf_read import GgufContents
from tallyformer.model.shape import ModelShape

MODEL = "model.gguf"
ARCHITECTURE = "llama"
BLOCK = 32
"""Numbers that share a scale."""
TOLERANCE = {
    "float32": Tolerance(1e-4, 1e-4),
    "float16": Tolerance(0.01, 0.01),
    "bfloat16": Tolerance(0.04, 0.08),
    "q8_0": Tolerance(0.15, 0.25),
    "q4_0": Tolerance(0.15, 1.0),
}
"""llama.cpp rounds what is multiplied to the matrix's type, for q8_0 and q4_0 to q8_0. What 4 bits
cost depends on the model; it is told, and only what cannot be the same model is refused."""
_TYPES = {
    "float32": gguf.GGMLQuantizationType.F32,
    "float16": gguf.GGMLQuantizationType.F16,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
_FILE_TYPES = {
    "float32": gguf.LlamaFileType.ALL_F32,
    "float16": gguf.LlamaFileType.MOSTLY_F16,
    "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}


def write(source: Source, folder: Path, *, dtype: str) -> None:
    """Write `model.gguf`: weights, sizes, tokenizer and chat template in one file.

    Args:
        source: the model.
        folder: an existing one.
        dtype: one of `TOLERANCE`. In "q8_0" and "q4_0" every matrix is quantised, the head
            included; vectors are float32.

    Raises:
        ArtifactError: the model is not of Llama's kind, a size is not a multiple of 32 and the
            dtype needs it, or the tokenizer does not cut text as GPT-2's does.
    """
    _check_shape(source, dtype)
    writer = gguf.GGUFWriter(folder / MODEL, ARCHITECTURE)
    _add_sizes(writer, source, dtype)
    _add_tokenizer(writer, source)
    for name, values in _tensors(source, dtype):
        kind = _TYPES[dtype] if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounding(dtype: str, matrix: np.ndarray) -> np.ndarray:
    """A matrix as it is stored."""
    kind, width = _TYPES[dtype], matrix.shape[1]
    padded = _padded(matrix, 1, dtype)
    stored = gguf.dequantize(gguf.quantize(np.ascontiguousarray(padded), kind), kind)
    return np.asarray(stored[:, :width], np.float32)


def load(folder: Path, source: Source) -> OtherEngine:
    """The written file in llama.cpp; where that is not installed, as it is read back."""
    if importlib.util.find_spec("llama_cpp") is None:
        return GgufContents(folder / MODEL, source)
    from tallyformer.export.llama_cpp import LlamaCpp

    engine = LlamaCpp(folder / MODEL, source)
    engine.check_tokenizer(source)
    return engine


def _check_shape(source: Source, dtype: str) -> None:
    shape = source.decoder.shape
    wanted = {"norm": "rms", "norm_placement": "pre", "mlp": "swiglu"}
    other = [
        f"{field} is {getattr(shape, field)!r}, not {value!r}"
        for field, value in wanted.items()
        if getattr(shape, field) != value
    ]
    if other:
        raise ArtifactError(
            f"{source.folder}: llama.cpp has no architecture of this shape ({', '.join(other)}). "
            "Train with model.preset: tally-51m-llama, or use --format onnx"
        )
    odd = [n for n in (shape.hidden, shape.heads * shape.head_dim) if n % BLOCK]
    if odd and _is_quantized(dtype):
        raise ArtifactError(
            f"{source.folder}: {dtype} needs a hidden size that is a multiple of {BLOCK}, not "
            f"{odd[0]}. Use --dtype bfloat16"
        )
    if source.tokenizer.gpt2_merges() is None:
        raise ArtifactError(
            f"{source.folder}: its tokenizer does not cut text as GPT-2's does, and this export "
            "knows no other way in llama.cpp. Use --format onnx"
        )


def _is_quantized(dtype: str) -> bool:
    return dtype.startswith("q")


def _padded(matrix: np.ndarray, axis: int, dtype: str) -> np.ndarray:
    """With zeros up to the next multiple of the block, where there are blocks."""
    missing = -matrix.shape[axis] % BLOCK if _is_quantized(dtype) else 0
    if not missing:
        return matrix
    widths = [(0, missing if one == axis else 0) for one in range(matrix.ndim)]
    return np.pad(matrix, widths)


def _add_sizes(writer: Any, source: Source, dtype: str) -> None:
    decoder, shape = source.decoder, source.decoder.shape
    writer.add_name(source.folder.resolve().name)
    writer.add_file_type(_FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn + (-shape.ffn % BLOCK if _is_quantized(dtype) else 0))
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(decoder.rope_theta)
    if shape.attention_scaling != 1.0:
        writer.add_rope_scaling_attn_factors(shape.attention_scaling)


def _add_tokenizer(writer: Any, source: Source) -> None:
    tokenizer, tokens = source.tokenizer, source.spellings()
    kinds = [gguf.TokenType.NORMAL] * tokenizer.vocab_size
    for number in tokenizer.control_ids:
        kinds[number] = gguf.TokenType.CONTROL
    kinds += [gguf.TokenType.UNUSED] * (len(tokens) - len(kinds))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.gpt2_merges() or ()])
    writer.add_bos_token_id(tokenizer.eot_id)
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template(training_marks=False))


def _tensors(source: Source, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    decoder, shape = source.decoder, source.decoder.shape
    yield "token_embd.weight", decoder.tensor(shape.embedding)
    yield "output_norm.weight", decoder.tensor(shape.final_norm.weight)
    if not shape.tied:
        yield "output.weight", decoder.tensor(shape.head)
    if (factors := rope_factors(shape, decoder.rope_theta)) is not None:
        yield "rope_freqs.weight", factors
    for number in range(shape.layers):
        for name, (matrix, bias) in _block(source, number, dtype):
            yield f"blk.{number}.{name}.weight", matrix
            if bias is not None:
                yield f"blk.{number}.{name}.bias", bias


def _block(source: Source, number: int, dtype: str) -> Iterator[tuple[str, Layer]]:
    decoder, names = source.decoder, source.decoder.shape.block(number)
    assert names.gate is not None
    yield "attn_norm", decoder.layer(names.attn_norm)
    yield "ffn_norm", decoder.layer(names.mlp_norm)
    yield "attn_q", decoder.rotated(names.query, layout="interleaved")
    yield "attn_k", decoder.rotated(names.key, layout="interleaved")
    yield "attn_v", decoder.layer(names.value)
    yield "attn_output", decoder.layer(names.proj)
    # Rows of zeros here meet columns of zeros there, and silu(0) * 0 is 0.
    for name, affine in (("ffn_gate", names.gate), ("ffn_up", names.fc1)):
        matrix, bias = decoder.layer(affine)
        yield name, (_padded(matrix, 0, dtype), None if bias is None else _padded(bias, 0, dtype))
    matrix, bias = decoder.layer(names.fc2)
    yield "ffn_down", (_padded(matrix, 1, dtype), bias)


def rope_factors(shape: ModelShape, rope_theta: float) -> np.ndarray | None:
    """By what each plain frequency is divided (E / 2,), or None where positions are not scaled."""
    exponent = np.arange(0, shape.head_dim, 2) / shape.head_dim
    factors = rope_theta**-exponent / np.array(shape.inv_freq)
    return None if np.allclose(factors, 1.0, atol=1e-6, rtol=0) else factors.astype(np.float32)
