"""The position-wise half of a block.

Shapes: B batch, T positions, D hidden size, F MLP width.
"""

from typing import Any

import torch
from torch import nn


class TallyFormerMLP(nn.Module):
    """`fc2(gelu(fc1(x)))` with the exact (erf) GELU, or `fc2(silu(gate(x)) * fc1(x))`.

    Sources: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415; Shazeer 2020,
    https://arxiv.org/abs/2002.05202, equation 6.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gated: bool = config.mlp_type == "swiglu"
        self.fc1 = nn.Linear(hidden, inner, bias=config.mlp_in_bias)
        if self.gated:
            self.gate = nn.Linear(hidden, inner, bias=config.mlp_in_bias)
        self.fc2 = nn.Linear(inner, hidden, bias=config.mlp_out_bias)
        # Read by TallyFormerPreTrainedModel._init_weights. A flag rather than a subclass of
        # Linear: quantisers look for the exact class.
        self.fc2.writes_residual = True  # type: ignore[assignment]

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return what this half adds to the residual stream, (B, T, D)."""
        if self.gated:
            inner_BTF = nn.functional.silu(self.gate(x_BTD)) * self.fc1(x_BTD)
        else:
            inner_BTF = nn.functional.gelu(self.fc1(x_BTD))
        out_BTD: torch.Tensor = self.fc2(inner_BTF)
        return out_BTD
