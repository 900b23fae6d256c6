"""The rotary frequencies of a configuration, computed with NumPy alone.

The numbers are those of the torch modules (`rope.py`, transformers' Llama), in the same order of
float32 operations. A power may differ by the last bit, as it does between two processors.

Shapes: E head size, R = E / 2 rotated pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tallyformer.model.config_fields import Fields, UnsupportedModelError
from tallyformer.quoting import quoted

Frequencies = NDArray[np.float32]
DEFAULT_BASE = 10_000.0
_TAKES_FIRST_CONTEXT = ("llama3", "yarn")


def rotary_settings(fields: Fields, *, context: int) -> Fields:
    """The rotary settings of a config.json in the one form that transformers makes of them.

    Older files have `rope_theta` and `rope_scaling` at the top, and `type` for `rope_type`.

    Args:
        fields: of the config.json.
        context: what it means where it names no `max_position_embeddings`.

    Raises:
        UnsupportedModelError: they differ from layer to layer, or two of them contradict.
    """
    old, new = fields.mapping("rope_scaling"), fields.mapping("rope_parameters")
    settings = dict(old or new or {})
    if any(isinstance(value, dict) for value in settings.values()):
        raise UnsupportedModelError("rope_parameters: they differ from layer to layer")
    theta = fields.values.get("rope_theta")
    base = settings.setdefault("rope_theta", DEFAULT_BASE if theta is None else theta)
    if theta is not None and theta != base:
        raise UnsupportedModelError(f"rope_theta: {theta} contradicts {base} of rope_parameters")
    settings.setdefault("rope_type", settings.get("type", "default"))
    if settings["rope_type"] in _TAKES_FIRST_CONTEXT:
        if fields.values.get("original_max_position_embeddings") is not None:
            raise UnsupportedModelError("original_max_position_embeddings: not in rope_parameters")
        settings.setdefault(
            "original_max_position_embeddings", fields.size("max_position_embeddings", context)
        )
    elif fields.values.get("partial_rotary_factor") is not None:
        raise UnsupportedModelError("partial_rotary_factor: rotates a part of a head")
    return Fields(settings)


def rope_frequencies(
    settings: Fields, head_dim: int, *, ours: bool
) -> tuple[tuple[float, ...], float]:
    """Radians per position of the R pairs, and a factor on their cosines and sines.

    Args:
        settings: what `rotary_settings` gives.
        head_dim: E.
        ours: computed as `TallyFormerRotaryEmbedding` does (`base ** -x`), else as Llama does
            (`1 / base ** x`); the scaled kinds are transformers' for both.

    Raises:
        UnsupportedModelError: the kind is not one of default, linear, llama3 and yarn, or a value
            that it needs is missing or out of range.
    """
    kind = settings.values["rope_type"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UnsupportedModelError(f"rope_type: {quoted(kind)} is not one of {', '.join(_KINDS)}")
    if kind != "default" and settings.values.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError("partial_rotary_factor: rotates a part of a head")
    try:
        with np.errstate(all="raise"):
            base = np.float32(settings.positive("rope_theta"))
            channel_R = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
            if ours and kind == "default":
                inv_freq_R, scaling = _power(base, -channel_R), 1.0
            else:
                inv_freq_R, scaling = _KINDS[kind](settings, _power(base, channel_R), float(base))
    except ArithmeticError:
        raise UnsupportedModelError("rope_parameters: a number is out of range") from None
    return tuple(inv_freq_R.tolist()), scaling


def _power(base: np.float32, exponent_R: Frequencies) -> Frequencies:
    """In float64, rounded once: within the last bit of any float32 power."""
    return (np.float64(base) ** exponent_R.astype(np.float64)).astype(np.float32)


def _default(settings: Fields, power_R: Frequencies, base: float) -> tuple[Frequencies, float]:
    return np.reciprocal(power_R), 1.0


def _linear(settings: Fields, power_R: Frequencies, base: float) -> tuple[Frequencies, float]:
    """Positions divided by a factor."""
    return np.divide(np.reciprocal(power_R), np.float32(settings.positive("factor"))), 1.0


def _llama3(settings: Fields, power_R: Frequencies, base: float) -> tuple[Frequencies, float]:
    """Long waves divided by a factor, short ones kept, those between interpolated.

    Source: Dubey et al. 2024, "The Llama 3 Herd of Models", https://arxiv.org/abs/2407.21783.
    """
    factor = np.float32(settings.positive("factor"))
    low, high = settings.positive("low_freq_factor"), settings.positive("high_freq_factor")
    first = settings.size("original_max_position_embeddings")
    if not low < high:
        raise UnsupportedModelError(f"high_freq_factor: {high} is not above {low}")
    plain_R = np.reciprocal(power_R)
    wave_R = np.reciprocal(plain_R) * np.float32(2 * math.pi)
    long_R = wave_R > np.float32(first / low)
    between_R = ~(wave_R < np.float32(first / high)) & ~long_R
    scaled_R = np.where(long_R, plain_R / factor, plain_R)
    share_R = (np.reciprocal(wave_R) * np.float32(first) - np.float32(low)) / np.float32(high - low)
    smooth_R = (1 - share_R) * scaled_R / factor + share_R * scaled_R
    return np.where(between_R, smooth_R, scaled_R), 1.0


def _yarn(settings: Fields, power_R: Frequencies, base: float) -> tuple[Frequencies, float]:
    """Each pair between kept and divided by a factor, by how often it turns in the first context.

    Source: Peng et al. 2023, https://arxiv.org/abs/2309.00071, sections 3.2 and 3.4.
    """
    factor, first = settings.positive("factor"), settings.size("original_max_position_embeddings")
    if base == 1.0:
        raise UnsupportedModelError("rope_theta: 1 has no wave lengths for yarn")
    pairs = len(power_R)
    turns = (settings.optional("beta_fast") or 32, settings.optional("beta_slow") or 1)
    low, high = (
        2 * pairs * math.log(first / (turn * 2 * math.pi)) / (2 * math.log(base)) for turn in turns
    )
    if settings.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    width = high - low if high != low else 0.001
    ramp_R = (np.arange(pairs, dtype=np.float32) - np.float32(low)) / np.float32(width)
    kept_R = (1 - np.clip(ramp_R, 0, 1)).astype(np.float32)
    plain_R, divided_R = np.reciprocal(power_R), np.reciprocal(np.float32(factor) * power_R)
    mixed_R: Frequencies = divided_R * (1 - kept_R) + plain_R * kept_R
    return mixed_R, _yarn_attention(settings, factor)


def _yarn_attention(settings: Fields, factor: float) -> float:
    given = settings.optional("attention_factor")
    if given is not None:
        return given
    scale, of_all = settings.optional("mscale"), settings.optional("mscale_all_dim")
    if scale and of_all:
        return _magnitude(factor, scale) / _magnitude(factor, of_all)
    return _magnitude(factor, 1.0)


def _magnitude(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


_KINDS: Mapping[str, Callable[[Fields, Frequencies, float], tuple[Frequencies, float]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
