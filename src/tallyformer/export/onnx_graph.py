"""A decoder as an ONNX graph with a key-value cache, from the standard's own operators.

Nothing is traced: the same graph comes from every version of torch. Its operators are those of
opset 18, in the patterns that onnxruntime fuses (norms, GELU, scaled products, whole numbers).

Shapes: B batch, T queries, P past keys, S = P + T keys, D hidden size, H heads, G heads of keys and
values, E head size, R = E / 2 rotated pairs, F MLP width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tallyformer.export.decoder import Decoder, Layer, stacked
from tallyformer.export.int8 import int8_rows
from tallyformer.model.shape import Affine

OPSET = 18
IR_VERSION = 10
Sizes = Sequence[str | int]
_LOWEST = float(np.finfo(np.float32).min)


def build_graph(decoder: Decoder, *, int8: bool) -> onnx.ModelProto:
    """The graph.

    Inputs: `input_ids` (B, T), `attention_mask` (B, S; 1 for a token, 0 for padding),
    `position_ids` (B, T) and the scalar `num_logits_to_keep` in int64: of how many last positions
    there are logits, 0 for all; `past_key_values.N.key` and `.value` (B, G, P, E) in float32.
    Outputs: `logits` (B, T, V) and `present.N.key`, `present.N.value` (B, G, S, E) in float32.

    Args:
        decoder: the model.
        int8: matrices as whole numbers of 8 bits with one scale an output channel; what is
            multiplied with them is brought to 8 bits as it comes.
    """
    return _Graph(decoder, int8=int8).model()


class _Graph:
    """Collects nodes; each method adds some and returns the name of their result."""

    def __init__(self, decoder: Decoder, *, int8: bool) -> None:
        self._decoder = decoder
        self._shape = decoder.shape
        self._int8 = int8
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._as_int8: dict[str, tuple[str, str, str]] = {}

    def model(self) -> onnx.ModelProto:
        shape, layers = self._shape, range(self._shape.layers)
        bias = self._mask()
        cos, sin = self._rotations()
        x_BTD = self._embedding()
        for layer in layers:
            x_BTD = self._block(layer, x_BTD, bias, cos, sin)
        x_BTD = self._norm(shape.final_norm, x_BTD)
        kept = self._op("Reshape", self._op("Neg", "num_logits_to_keep"), self._ints([1]))
        last = self._op("Slice", x_BTD, kept, self._ints([2**62]), self._ints([1]))
        self._linear(last, "head", (self._decoder.tensor(shape.head), None), out="logits")
        cache: Sizes = ["batch", shape.kv_heads, "past", shape.head_dim]
        present: Sizes = ["batch", shape.kv_heads, "keys", shape.head_dim]
        names = [f"{n}.{kind}" for n in layers for kind in ("key", "value")]
        inputs = [
            _value("input_ids", ["batch", "queries"], TensorProto.INT64),
            _value("attention_mask", ["batch", "keys"], TensorProto.INT64),
            _value("position_ids", ["batch", "queries"], TensorProto.INT64),
            *(_value(f"past_key_values.{name}", cache) for name in names),
            _value("num_logits_to_keep", [], TensorProto.INT64),
        ]
        outputs = [
            _value("logits", ["batch", "kept", shape.vocab]),
            *(_value(f"present.{name}", present) for name in names),
        ]
        graph = helper.make_graph(
            self._nodes, "decoder", inputs, outputs, list(self._constants.values())
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="tallyformer",
        )

    def _op(self, kind: str, *inputs: str, out: str | Sequence[str] = "", **attributes: Any) -> str:
        outputs = [out] if isinstance(out, str) else list(out)
        outputs = [name or f"{kind.lower()}_{len(self._nodes)}" for name in outputs]
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs[0]

    def _keep(self, name: str, array: np.ndarray) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def _ints(self, values: Sequence[int]) -> str:
        return self._keep(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def _float(self, value: float) -> str:
        return self._keep(f"float_{value!r}", np.array(value, np.float32))

    def _length(self, of: str) -> str:
        """The second size of a matrix, as a scalar."""
        shape = self._op("Shape", of, start=1, end=2)
        return self._op("Squeeze", shape, self._ints([0]))

    def _mask(self) -> str:
        """What is added to the scores, (B, 1, T, S): nothing, or the lowest float."""
        keys, queries = self._length("attention_mask"), self._length("input_ids")
        zero, one = (self._keep(f"int_{n}", np.array(n, np.int64)) for n in (0, 1))
        key_S = self._op("Range", zero, keys, one)
        query_T = self._op("Range", self._op("Sub", keys, queries), keys, one)
        query_T1 = self._op("Unsqueeze", query_T, self._ints([1]))
        causal_TS = self._op("LessOrEqual", key_S, query_T1)
        token_BS = self._op("Cast", "attention_mask", to=TensorProto.BOOL)
        token_B11S = self._op("Unsqueeze", token_BS, self._ints([1, 2]))
        seen = self._op("And", causal_TS, token_B11S)
        return self._op("Where", seen, self._float(0.0), self._float(_LOWEST))

    def _rotations(self) -> tuple[str, str]:
        """Cosines and sines (B, 1, T, R)."""
        position_BT = self._op("Cast", "position_ids", to=TensorProto.FLOAT)
        position_B1T1 = self._op("Unsqueeze", position_BT, self._ints([1, 3]))
        frequency_R = self._keep("inv_freq", np.array(self._shape.inv_freq, np.float32))
        angle = self._op("Mul", position_B1T1, frequency_R)
        both = [self._op(kind, angle) for kind in ("Cos", "Sin")]
        if (scale := self._shape.attention_scaling) != 1.0:
            both = [self._op("Mul", one, self._float(scale)) for one in both]
        return both[0], both[1]

    def _embedding(self) -> str:
        weight = self._decoder.tensor(self._shape.embedding)
        name = "head" if self._shape.tied else "embedding"
        if not self._int8:
            return self._columns(self._keep(name, weight.T))
        matrix, scale_V, _ = self._whole_numbers(name, weight)
        x_BTD = self._op("Cast", self._columns(matrix), to=TensorProto.FLOAT)
        scale_BT = self._op("Gather", scale_V, "input_ids")
        return self._op("Mul", x_BTD, self._op("Unsqueeze", scale_BT, self._ints([2])))

    def _columns(self, matrix_DV: str) -> str:
        """The tokens' columns as rows (B, T, D): a tied head is stored once, as it multiplies."""
        x_DBT = self._op("Gather", matrix_DV, "input_ids", axis=1)
        return self._op("Transpose", x_DBT, perm=[1, 2, 0])

    def _block(self, layer: int, x_BTD: str, bias: str, cos: str, sin: str) -> str:
        names = self._shape.block(layer)

        def attend(y_BTD: str) -> str:
            return self._attention(layer, y_BTD, bias, cos, sin)

        def feed_forward(y_BTD: str) -> str:
            return self._mlp(layer, y_BTD)

        x_BTD = self._add(x_BTD, attend, names.attn_norm)
        return self._add(x_BTD, feed_forward, names.mlp_norm)

    def _add(self, x_BTD: str, half: Callable[[str], str], norm: Affine) -> str:
        if self._shape.norm_placement == "pre":
            return self._op("Add", x_BTD, half(self._norm(norm, x_BTD)))
        return self._norm(norm, self._op("Add", x_BTD, half(x_BTD)))

    def _attention(self, layer: int, x_BTD: str, bias: str, cos: str, sin: str) -> str:
        shape, at = self._shape, f"blocks.{layer}.attention"
        heads, groups, size = shape.heads, shape.kv_heads, shape.head_dim
        mixed = self._linear(x_BTD, f"{at}.qkv", self._decoder.qkv(layer))
        split = self._op("Reshape", mixed, self._ints([0, 0, heads + 2 * groups, size]))
        all_BXTE = self._op("Transpose", split, perm=[0, 2, 1, 3])
        turned, value = self._split(all_BXTE, f"{at}.turned", [heads + groups, groups], axis=1)
        rotated = self._rotate(at, turned, cos, sin)
        query, key = self._split(rotated, f"{at}.rotated", [heads, groups], axis=1)
        keys, values = (
            self._op(
                "Concat",
                f"past_key_values.{layer}.{kind}",
                fresh,
                out=f"present.{layer}.{kind}",
                axis=2,
            )
            for kind, fresh in (("key", key), ("value", value))
        )
        out_BHTE = self._attend(query, keys, values, bias)
        out_BTHE = self._op("Transpose", out_BHTE, perm=[0, 2, 1, 3])
        flat = self._op("Reshape", out_BTHE, self._ints([0, 0, heads * size]))
        return self._linear(flat, f"{at}.proj", self._decoder.layer(shape.block(layer).proj))

    def _rotate(self, at: str, x_BXTE: str, cos: str, sin: str) -> str:
        """Pairs are in halves here: `Decoder.qkv` brings them there."""
        half = self._shape.head_dim // 2
        first, second = self._split(x_BXTE, f"{at}.pairs", [half, half], axis=-1)
        turned = (
            self._op("Sub", self._op("Mul", first, cos), self._op("Mul", second, sin)),
            self._op("Add", self._op("Mul", second, cos), self._op("Mul", first, sin)),
        )
        return self._op("Concat", *turned, axis=-1)

    def _split(self, x: str, name: str, sizes: Sequence[int], *, axis: int) -> list[str]:
        outputs = [f"{name}.{number}" for number in range(len(sizes))]
        self._op("Split", x, self._ints(sizes), out=outputs, axis=axis)
        return outputs

    def _attend(self, query: str, key: str, value: str, bias: str) -> str:
        shape = self._shape
        shared = shape.heads // shape.kv_heads
        if shared > 1:  # the queries of one head of keys, one behind the other
            grouped = self._ints([0, shape.kv_heads, shared, -1, shape.head_dim])
            query = self._op("Reshape", query, grouped)
            key, value = (self._op("Unsqueeze", one, self._ints([2])) for one in (key, value))
            bias = self._op("Unsqueeze", bias, self._ints([1]))
        axes = [*range(3 if shared > 1 else 2)]
        key_ES = self._op("Transpose", key, perm=[*axes, len(axes) + 1, len(axes)])
        scores = self._op("MatMul", query, key_ES)
        scores = self._op("Mul", scores, self._float(shape.head_dim**-0.5))
        weights = self._op("Softmax", self._op("Add", scores, bias), axis=-1)
        mixed = self._op("MatMul", weights, value)
        if shared > 1:
            mixed = self._op("Reshape", mixed, self._ints([0, shape.heads, -1, shape.head_dim]))
        return mixed

    def _mlp(self, layer: int, x_BTD: str) -> str:
        decoder, names, at = self._decoder, self._shape.block(layer), f"blocks.{layer}.mlp"
        inner = decoder.layer(names.fc1)
        if names.gate is not None:
            gated = stacked([decoder.layer(names.gate), inner])
            both = self._linear(x_BTD, f"{at}.gate_fc1", gated)
            gate, up = self._split(both, f"{at}.inner", [self._shape.ffn] * 2, axis=-1)
            x_BTF = self._op("Mul", self._op("Mul", gate, self._op("Sigmoid", gate)), up)
        else:
            x_BTF = self._gelu(self._linear(x_BTD, f"{at}.fc1", inner))
        return self._linear(x_BTF, f"{at}.fc2", decoder.layer(names.fc2))

    def _gelu(self, x: str) -> str:
        error = self._op("Erf", self._op("Div", x, self._float(2.0**0.5)))
        twice = self._op("Mul", x, self._op("Add", error, self._float(1.0)))
        return self._op("Mul", twice, self._float(0.5))

    def _norm(self, names: Affine, x_BTD: str) -> str:
        weight, bias = self._decoder.layer(names)
        scale, epsilon = self._keep(names.weight, weight), self._shape.norm_eps
        if self._shape.norm == "layer":
            shift = self._keep(
                f"{names.weight}.shift", np.zeros_like(weight) if bias is None else bias
            )
            return self._op("LayerNormalization", x_BTD, scale, shift, epsilon=epsilon)
        square = self._op("Pow", x_BTD, self._float(2.0))
        mean = self._op("ReduceMean", square, self._ints([-1]), keepdims=1)
        root = self._op("Sqrt", self._op("Add", mean, self._float(epsilon)))
        return self._op("Mul", self._op("Div", x_BTD, root), scale)

    def _linear(self, x: str, name: str, layer: Layer, out: str = "") -> str:
        weight, bias = layer
        product = "" if bias is not None else out
        if self._int8:
            y = self._whole_product(x, *self._whole_numbers(name, weight), out=product)
        else:
            y = self._op("MatMul", x, self._keep(name, weight.T), out=product)
        if bias is None:
            return y
        return self._op("Add", y, self._keep(f"{name}.bias", bias), out=out)

    def _whole_numbers(self, name: str, weight: np.ndarray) -> tuple[str, str, str]:
        """A matrix (in, out), its scales and their zero points."""
        if name not in self._as_int8:
            whole, scale = int8_rows(weight)
            self._as_int8[name] = (
                self._keep(f"{name}.int8", whole.T),
                self._keep(f"{name}.scale", scale),
                self._keep("int8_zero", np.array(0, np.int8)),
            )
        return self._as_int8[name]

    def _whole_product(self, x: str, matrix: str, scale: str, zero: str, out: str) -> str:
        names = [f"{x}.{part}" for part in ("int8", "scale", "zero")]
        if not any(names[0] in node.output for node in self._nodes[-8:]):
            self._op("DynamicQuantizeLinear", x, out=names)
        product = self._op("MatMulInteger", names[0], matrix, names[2], zero)
        both_scales = self._op("Mul", names[1], scale)
        return self._op(
            "Mul", self._op("Cast", product, to=TensorProto.FLOAT), both_scales, out=out
        )


def _value(name: str, shape: Sizes, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)
