"""The two normalisations of the residual stream.

Shapes: B batch, T positions, D hidden size.
"""

from typing import Any

import torch
from torch import nn


class TallyFormerRMSNorm(nn.Module):
    """`x / sqrt(mean(x**2) + eps) * weight`, computed in float32 and cast back.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, equation 4.
    """

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return the normalised `x_BTD` in its own dtype."""
        return nn.functional.rms_norm(
            x_BTD.float(), self.weight.shape, self.weight.float(), self.eps
        ).to(x_BTD.dtype)

    def extra_repr(self) -> str:
        """Show the width and eps when the model is printed."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


def build_norm(config: Any) -> nn.Module:
    """Return a fresh norm of the kind that `config.norm_type` names."""
    if config.norm_type == "rmsnorm":
        return TallyFormerRMSNorm(config.hidden_size, config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
