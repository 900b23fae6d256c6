"""One block of the decoder.

Shapes: B batch, T positions, D hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import TallyFormerAttention
from .configuration_tallyformer import TallyFormerConfig
from .mlp import TallyFormerMLP
from .norm import build_norm


class TallyFormerBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention, then the MLP, each added to the residual stream."""

    def __init__(self, config: TallyFormerConfig, layer_idx: int) -> None:
        super().__init__()
        self.pre_norm = config.norm_placement == "pre"
        self.attn_norm = build_norm(config)
        self.attention = TallyFormerAttention(config, layer_idx)
        self.mlp_norm = build_norm(config)
        self.mlp = TallyFormerMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the residual stream (B, T, D) after this block."""

        def attend(x_BTD: torch.Tensor) -> torch.Tensor:
            mixed_BTD, _ = self.attention(
                x_BTD,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                cache=cache,
                **kwargs,
            )
            dropped_BTD: torch.Tensor = self.dropout(mixed_BTD)
            return dropped_BTD

        def feed_forward(x_BTD: torch.Tensor) -> torch.Tensor:
            dropped_BTD: torch.Tensor = self.dropout(self.mlp(x_BTD))
            return dropped_BTD

        hidden_states = self._add(hidden_states, attend, self.attn_norm)
        return self._add(hidden_states, feed_forward, self.mlp_norm)

    def _add(
        self, x_BTD: torch.Tensor, half: Callable[[torch.Tensor], torch.Tensor], norm: nn.Module
    ) -> torch.Tensor:
        if self.pre_norm:
            return x_BTD + half(norm(x_BTD))
        out_BTD: torch.Tensor = norm(x_BTD + half(x_BTD))
        return out_BTD
