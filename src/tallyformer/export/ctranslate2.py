"""CTranslate2: writing a model through its specification, and running it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import common_spec, transformer_spec

from tallyformer.errors import ArtifactError
from tallyformer.export.decoder import Layer, Source
from tallyformer.export.engine_check import Tolerance
from tallyformer.export.int8 import rounded_to_int8
from tallyformer.model.shape import Affine, ModelShape

TOLERANCE = {"float32": Tolerance(1e-4, 1e-4), "int8": Tolerance(0.15, 0.25)}
"""int8 rounds what is multiplied too, with a scale for each position."""


def write(source: Source, folder: Path, *, dtype: str) -> None:
    """Write `model.bin`, `config.json`, `vocabulary.json` and the tokenizer.

    Args:
        source: the model.
        folder: an existing one.
        dtype: "float32" or "int8".

    Raises:
        ArtifactError: its rotary positions are scaled.
    """
    decoder, shape = source.decoder, source.decoder.shape
    if decoder.rope_type != "default":
        raise ArtifactError(
            f"{source.folder}: its rope_type {decoder.rope_type!r} is not exported to CTranslate2. "
            "Use --format onnx or gguf"
        )
    spec = _empty_spec(shape, decoder.rope_theta)
    spec.config.layer_norm_epsilon = shape.norm_eps
    _fill(spec.decoder, source)
    tokenizer = source.tokenizer
    tokens = source.spellings()
    spec.config.bos_token = spec.config.eos_token = tokens[tokenizer.eot_id]
    spec.config.unk_token = tokens[tokenizer.pad_id]
    spec.register_vocabulary(tokens)
    spec.validate()
    spec.optimize(quantization="int8" if dtype == "int8" else None)
    spec.save(str(folder))
    tokenizer.save(folder, model_max_length=shape.context)


def rounding(dtype: str, matrix: np.ndarray) -> np.ndarray:
    """A matrix as it is stored."""
    return rounded_to_int8(matrix) if dtype == "int8" else matrix


def _empty_spec(shape: ModelShape, rope_theta: float) -> Any:
    activation = common_spec.Activation.SWISH if shape.mlp == "swiglu" else None
    return transformer_spec.TransformerDecoderModelSpec.from_config(
        shape.layers,
        shape.heads,
        activation=common_spec.Activation.GELU if activation is None else activation,
        pre_norm=shape.norm_placement == "pre",
        ffn_glu=shape.mlp == "swiglu",
        rms_norm=shape.norm == "rms",
        rotary_dim=shape.head_dim,
        rotary_interleave=False,
        rotary_base=rope_theta,
        num_heads_kv=None if shape.kv_heads == shape.heads else shape.kv_heads,
        head_dim=shape.head_dim,
    )


def _fill(spec: Any, source: Source) -> None:
    decoder, shape = source.decoder, source.decoder.shape

    def norm(part: Any, names: Affine) -> None:
        part.gamma, shift = decoder.layer(names)
        if shape.norm == "layer":
            part.beta = np.zeros_like(part.gamma) if shift is None else shift

    spec.scale_embeddings = False
    spec.embeddings.weight = decoder.tensor(shape.embedding)
    spec.projection.weight = decoder.tensor(shape.head)
    norm(spec.layer_norm, shape.final_norm)
    for number, block in enumerate(spec.layer):
        names = shape.block(number)
        norm(block.self_attention.layer_norm, names.attn_norm)
        norm(block.ffn.layer_norm, names.mlp_norm)
        _linear(block.self_attention.linear[0], decoder.qkv(number))
        _linear(block.self_attention.linear[1], decoder.layer(names.proj))
        inner = decoder.layer(names.fc1)
        if names.gate is None:
            _linear(block.ffn.linear_0, inner)
        else:
            _linear(block.ffn.linear_0, decoder.layer(names.gate))
            _linear(block.ffn.linear_0_noact, inner)
        _linear(block.ffn.linear_1, decoder.layer(names.fc2))


def _linear(part: Any, layer: Layer) -> None:
    part.weight, bias = layer
    if bias is not None:
        part.bias = bias


class CTranslate2Engine:
    """A written folder in CTranslate2, on the CPU."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.name = f"ctranslate2 {ctranslate2.__version__}"
        self._generator = ctranslate2.Generator(str(folder), device="cpu")
        self._tokens = source.spellings()
        self._never = self._tokens[source.tokenizer.pad_id]

    def logits(self, ids_T: np.ndarray) -> np.ndarray:
        """See `OtherEngine`."""
        found = self._generator.forward_batch([ids_T.tolist()])
        return np.asarray(np.array(found)[0], np.float32)

    def greedy(self, ids_T: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """See `OtherEngine`. A `<|pad|>` ends it earlier."""
        (found,) = self._generator.generate_batch(
            [[self._tokens[i] for i in ids_T]],
            max_length=steps,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=self._never,
            return_logits_vocab=True,
        )
        ids = found.sequences_ids[0][:steps]
        rows = [np.array(row).astype(np.float32) for row in found.logits[0][: len(ids)]]
        return np.array(ids, np.int64), np.array(rows, np.float32).reshape(len(ids), -1)


def load(folder: Path, source: Source) -> CTranslate2Engine:
    """A written folder in CTranslate2."""
    return CTranslate2Engine(folder, source)
