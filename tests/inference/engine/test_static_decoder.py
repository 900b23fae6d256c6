"""The decoder for GPUs computes what the transformers model computes, in few operators.

A fake tensor has a device, a shape and a dtype, and no numbers. So every operator of a step runs on
tensors of a GPU without a GPU: what mixes devices, and what reads a number to decide, fails. It is
not shown how fast the operators are, nor that CUDA itself records them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tallyformer.inference.engine.static_decoder import StaticDecoder, Window
from tallyformer.inference.engine.static_steps import StaticSteps
from tallyformer.inference.torch_runners import static_shape
from tallyformer.model.shape import ModelShape, shape_of

from .decoders import KINDS, VOCABULARY, WIDE, config_of, make


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_decoder_gives_the_plain_models_logits(kind: str) -> None:
    """A window of 10 ids, then one by one, of two rows. Float32 sums to 1e-4 of logits near 6."""
    torch.manual_seed(0)
    model = make(kind)
    shape = static_shape(model)
    assert isinstance(shape, ModelShape)
    ids_BT = torch.randint(0, VOCABULARY, (2, 40))
    with torch.inference_mode():
        decoder = StaticDecoder(shape, model.state_dict(), VOCABULARY, slots=3, columns=72)
        found = [
            decoder.logits(decoder.final(window(ids_BT, first, after))).unflatten(0, (2, -1))
            for first, after in [(0, 10), *((t, t + 1) for t in range(10, 40))]
        ]
        torch.testing.assert_close(torch.cat(found, dim=1), model(ids_BT).logits, atol=1e-4, rtol=0)


def window(ids_BT: torch.Tensor, first: int, after: int) -> Window:
    """Rows 0 and 1 read as many columns as they need, in eights."""
    places_BT = torch.arange(first, after).expand(2, -1)
    numbers_B1 = torch.arange(2)[:, None]
    width = -(-after // 8) * 8
    return Window(ids_BT[:, first:after], places_BT, places_BT, numbers_B1, slice(0, 2), width)


LAYERS = 3


def decode(steps: StaticSteps) -> None:
    steps.decode(4, 64)


@pytest.mark.parametrize(
    ("work", "kind", "most"),
    [
        (decode, "plain", 6 + 13 * LAYERS),
        (decode, "gated", 6 + 15 * LAYERS),
        (decode, "shared keys", 6 + 16 * LAYERS),
        (decode, "wide", 6 + 15 * LAYERS),
        (lambda steps: steps.prefill(16, 64), "plain", 7 + 14 * LAYERS),
        (lambda steps: steps.prefill(16, 64), "shared keys", 8 + 18 * LAYERS),
        (lambda steps: steps.draw(4, "greedy"), "plain", 6),
        (lambda steps: steps.draw(4, "of candidates"), "plain", 39),
        (lambda steps: steps.draw(4, "of the vocabulary"), "plain", 46),
    ],
)
def test_a_step_has_few_operators_all_on_the_device(
    work: Callable[[StaticSteps], None], kind: str, most: int
) -> None:
    """None takes a number or a tensor of the host, or gives it one; at a real vocabulary. Nor are
    settings of the process changed, which another thread would compute with."""
    config = config_of(kind, vocab_size=50260, num_hidden_layers=LAYERS)
    shape = shape_of(config.to_dict())
    operators, before = Operators(), attention_settings()
    with FakeTensorMode(), AsBuiltForGpus(operators), torch.no_grad():
        weights = {
            name: torch.zeros(size, dtype=torch.bfloat16, device="cuda")
            for name, size in shape.tensors().items()
        }
        steps = StaticSteps(shape, weights, 50257, slots=8)
        with operators:
            work(steps)

    assert not operators.of_the_host
    assert operators.settings == {before}
    attention = operators.launched.count("aten._scaled_dot_product_efficient_attention.default")
    assert attention in (0, LAYERS)
    assert most / 2 < len(operators.launched) <= most, operators.launched


def attention_settings() -> tuple[bool, ...]:
    """Which attention torch may choose."""
    of = torch.backends.cuda
    fused = of.flash_sdp_enabled(), of.mem_efficient_sdp_enabled(), of.cudnn_sdp_enabled()
    return (*fused, of.math_sdp_enabled())


class Operators(TorchDispatchMode):
    """Notes operators that make or change a tensor, and those that know one of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []
        self.of_the_host: list[str] = []
        self.settings: set[tuple[bool, ...]] = set()
        self.within_one = False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.settings.add(attention_settings())
        result = function(*args, **(kwargs or {}))
        known = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        if any(tensor.device.type != "cuda" for tensor in known):
            self.of_the_host.append(str(function))
        makes = function.namespace == "aten" and not function.is_view and function not in _FREE
        if makes and not self.within_one:
            self.launched.append(str(function))
        return result


_FREE = (torch.ops.aten._unsafe_view.default,)
_ONE = {functional.rms_norm}
"""One kernel on a GPU; torch built for CPUs takes it apart."""


class AsBuiltForGpus(TorchFunctionMode):
    """What torch built for CPUs does not do for a tensor that says it is on a GPU: brackets and
    copies, which are given as the operators that they stand for."""

    def __init__(self, operators: Operators) -> None:
        super().__init__()
        self._operators = operators

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.Tensor.copy_:
            return torch.ops.aten.copy_(*args)
        if function is torch.Tensor.__getitem__:
            return indexed(*args)
        if function in _ONE and not self._operators.within_one:
            self._operators.launched.append(function.__name__)
            self._operators.within_one = True
        result = function(*args, **(kwargs or {}))
        self._operators.within_one &= function not in _ONE
        return result


def indexed(tensor: torch.Tensor, places: Any) -> torch.Tensor:
    """`tensor[places]`."""
    dim = 0
    for place in places if isinstance(places, tuple) else (places,):
        if isinstance(place, int):
            tensor = tensor.select(dim, place)
            continue
        if place is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(place, slice):
            tensor = torch.ops.aten.slice(tensor, dim, place.start, place.stop)
        else:
            tensor = torch.ops.aten.index(tensor, [None] * dim + [place])
        dim += 1
    return tensor


@pytest.mark.parametrize(("kind", "rows"), [("plain", 5 * 64), ("wide", 3 * WIDE["hidden_size"])])
def test_a_wide_model_has_no_more_weights_to_read_than_it_has(kind: str, rows: float) -> None:
    model = make(kind)
    shape = static_shape(model)
    assert isinstance(shape, ModelShape)
    decoder = StaticDecoder(shape, model.state_dict(), VOCABULARY, slots=1, columns=8)
    assert decoder._blocks[0].heads.weight.shape == (rows, shape.hidden)
