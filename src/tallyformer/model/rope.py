"""Rotary position embedding: a query and a key meet at an angle that grows with their distance.

Channel pair r of a head at position t is turned by the angle `t * theta ** (-2r / E)`, so that the
dot product of a query at t and a key at s depends on t - s alone.
Source: Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864, equation 34.

Shapes: B batch (or 1), T positions, H heads, E head size, R = E / 2 rotated pairs.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update


class TallyFormerRotaryEmbedding(nn.Module):
    """The cosines and sines of every rotation, computed from positions without a table.

    No table means no longest position: an input past `max_position_embeddings` computes as any
    other. The class keeps the attributes transformers expects of a rotary module, because its
    loader refills the buffers of a model that was built on the meta device.
    """

    inv_freq: torch.Tensor
    original_inv_freq: torch.Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type: str = config.rope_parameters["rope_type"]
        inv_freq_R, self.attention_scaling = self._frequencies()
        self.register_buffer("inv_freq", inv_freq_R, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq_R.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(
        config: Any, device: torch.device | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, float]:
        """Return the R angular frequencies in radians per position, and a scale of 1 for cos, sin.

        `kwargs` are what transformers passes to its scaled variants; the plain one needs none.
        """
        channel_R = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
        return config.rope_theta ** (-channel_R / config.head_dim), 1.0

    def _frequencies(self) -> tuple[torch.Tensor, float]:
        if self.rope_type == "default":
            return self.compute_default_rope_parameters(self.config)
        if self.rope_type not in ROPE_INIT_FUNCTIONS:
            raise ValueError(
                f"TallyFormerConfig.rope_parameters['rope_type']: {self.rope_type!r} is unknown. "
                f"Use 'default' or one of {sorted(ROPE_INIT_FUNCTIONS)}."
            )
        inv_freq_R, scaling = ROPE_INIT_FUNCTIONS[self.rope_type](self.config)
        return inv_freq_R, float(scaling)

    def _apply(self, fn: Any, recurse: bool = True) -> "TallyFormerRotaryEmbedding":
        # `model.to(torch.bfloat16)` would round the frequencies to 8 bits, and the rounding error
        # is multiplied by the position: they stay float32 whatever the weights are.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.inv_freq.dtype != torch.float32:
            exact_R, self.attention_scaling = self._frequencies()
            self.inv_freq = exact_R.to(self.inv_freq.device)
            self.original_inv_freq = self.inv_freq.clone()
        return self

    @torch.no_grad()
    @dynamic_rope_update  # type: ignore[untyped-decorator]
    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `cos_BTR, sin_BTR` in the dtype of `x` for the positions `position_ids` (B, T).

        The angles are float32 always: bfloat16 cannot even count to 257.
        """
        frequency_R = self.inv_freq.to(device=x.device, dtype=torch.float32)
        angle_BTR = position_ids[..., None].float() * frequency_R
        cos_BTR = angle_BTR.cos() * self.attention_scaling
        sin_BTR = angle_BTR.sin() * self.attention_scaling
        return cos_BTR.to(x.dtype), sin_BTR.to(x.dtype)


def rotate(
    x_BHTE: torch.Tensor, cos_BTR: torch.Tensor, sin_BTR: torch.Tensor, layout: str
) -> torch.Tensor:
    """Turn each channel pair of each head by its angle.

    What surprises: both layouts return the R first coordinates before the R second ones. For
    "interleaved" that is a permutation of the textbook result. Queries and keys are permuted
    alike, so every score is the textbook's, and no pass over memory is spent on undoing it.

    Args:
        x_BHTE: queries or keys.
        cos_BTR: cosines; B may be 1.
        sin_BTR: sines; B may be 1.
        layout: "interleaved" pairs channels (2r, 2r + 1), "half" pairs (r, r + R).

    Returns:
        A tensor of the shape and dtype of `x_BHTE`.
    """
    leading = x_BHTE.shape[:-1]
    if layout == "interleaved":
        first_BHTR, second_BHTR = x_BHTE.view(*leading, -1, 2).unbind(-1)
    else:
        first_BHTR, second_BHTR = x_BHTE.view(*leading, 2, -1).unbind(-2)
    # Under autocast x is narrower than the residual stream that cos and sin were made for.
    cos_B1TR = cos_BTR.to(x_BHTE.dtype).unsqueeze(1)
    sin_B1TR = sin_BTR.to(x_BHTE.dtype).unsqueeze(1)
    return torch.cat(
        (
            first_BHTR * cos_B1TR - second_BHTR * sin_B1TR,
            second_BHTR * cos_B1TR + first_BHTR * sin_B1TR,
        ),
        dim=-1,
    )
