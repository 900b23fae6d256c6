"""AdamW with two groups: matrices decay; norm scales, biases and embeddings do not."""

from __future__ import annotations

import torch
from torch import nn

from tallyformer.config.training import OptimizerSection


def decay_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Trainable parameters by name: those that decay, and those that do not.

    Weight decay keeps the scale of matrices in check. A norm scale or bias pulled to zero only
    loses capacity, and a rare token's embedding would decay at every step but be trained seldom.
    A tied head is its embedding; an untied head is treated the same.
    """
    spared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        spared.add(id(head.weight))
    decayed: dict[str, nn.Parameter] = {}
    plain: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and id(parameter) not in spared
            matrix = matrix and "trainable_tokens_delta" not in name
            (decayed if matrix else plain)[name] = parameter
    return decayed, plain


def build_adamw(model: nn.Module, section: OptimizerSection) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2)."""
    decayed, plain = decay_groups(model)
    groups = [
        {"params": list(decayed.values()), "weight_decay": section.weight_decay},
        {"params": list(plain.values()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=section.learning_rate,
        betas=section.betas,
        eps=section.eps,
        fused=True,
    )
