"""Causal multi-head self-attention with rotary positions.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1.

Shapes: B batch, T queries, S keys, D hidden size, H heads, E head size, R = E / 2.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .protocol import check_names, one_cache
from .rope import rotate


def eager_attention(  # noqa: PLR0917 - transformers' interface
    module: nn.Module,
    q_BHTE: torch.Tensor,
    k_BHSE: torch.Tensor,
    v_BHSE: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, the only kind that can return its weights.

    Args:
        module: the calling attention; its `training` switches dropout.
        q_BHTE: rotated queries.
        k_BHSE: rotated keys.
        v_BHSE: values.
        attention_mask: added to the scores, (B or 1, 1, T, S); None attends everywhere.
        scaling: factor on the dot products, `1 / sqrt(E)`.
        dropout: probability on the attention weights.
        kwargs: what transformers passes to its other implementations.

    Returns:
        The mixed values (B, T, H, E) and the weights (B, H, T, S).
    """
    score_BHTS = (q_BHTE @ k_BHSE.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        score_BHTS = score_BHTS + attention_mask
    weight_BHTS = score_BHTS.softmax(dim=-1, dtype=torch.float32).to(q_BHTE.dtype)
    weight_BHTS = nn.functional.dropout(weight_BHTS, p=dropout, training=module.training)
    return (weight_BHTS @ v_BHSE).transpose(1, 2).contiguous(), weight_BHTS


class TallyFormerAttention(nn.Module):
    """Project to heads, rotate, look up the cache, attend, project back."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim: int = config.head_dim
        self.scaling = self.head_dim**-0.5
        self.dropout: float = config.dropout
        self.is_causal = True
        hidden = config.hidden_size
        self.query = nn.Linear(hidden, hidden, bias=config.attention_bias)
        self.key = nn.Linear(hidden, hidden, bias=config.attention_bias)
        self.value = nn.Linear(hidden, hidden, bias=config.attention_bias)
        self.proj = nn.Linear(hidden, hidden, bias=config.proj_bias)
        # Read by TallyFormerPreTrainedModel._init_weights, as in mlp.py.
        self.proj.writes_residual = True  # type: ignore[assignment]

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix values over the positions each query may see.

        Args:
            hidden_states: (B, T, D).
            position_embeddings: `cos_BTR, sin_BTR`.
            attention_mask: what the configured implementation expects; None is plain causal.
            past_key_values: a transformers cache that this layer extends, or None.
            cache: another name for it.
            kwargs: passed to the attention implementation.

        Returns:
            (B, T, D), and the weights (B, H, T, S) where the implementation has them.

        Raises:
            TypeError: an argument that nobody reads, or two caches.
        """
        check_names(self, kwargs)
        past_key_values = one_cache(self, past_key_values, cache, kwargs)
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        q_BHTE = self.query(hidden_states).view(heads).transpose(1, 2)
        k_BHSE = self.key(hidden_states).view(heads).transpose(1, 2)
        v_BHSE = self.value(hidden_states).view(heads).transpose(1, 2)
        cos_BTR, sin_BTR = position_embeddings
        layout = self.config.rope_layout
        q_BHTE = rotate(q_BHTE, cos_BTR, sin_BTR, layout)
        k_BHSE = rotate(k_BHSE, cos_BTR, sin_BTR, layout)
        if past_key_values is not None:
            # Pages of continuous batching change the arguments of the attention implementation.
            k_BHSE, v_BHSE = past_key_values.update(k_BHSE, v_BHSE, self.layer_idx, kwargs=kwargs)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        mixed_BTHE, weight_BHTS = attend(
            self,
            q_BHTE,
            k_BHSE,
            v_BHSE,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.proj(mixed_BTHE.flatten(2)), weight_BHTS
