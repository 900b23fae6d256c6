"""AdamW and Muon: matrices decay; norm scales, biases and embeddings do not."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

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


def build_optimizer(model: nn.Module, section: OptimizerSection) -> Optimizer:
    """The optimizer of a section, over all trainable parameters."""
    decayed, plain = decay_groups(model)
    if section.name == "adamw":
        return _adamw(section, list(decayed.values()), list(plain.values()))
    return Combined(
        _muon(section, list(decayed.values())), _adamw(section, [], list(plain.values()))
    )


def _adamw(
    section: OptimizerSection, decayed: list[nn.Parameter], plain: list[nn.Parameter]
) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2)."""
    groups = [
        {"params": decayed, "weight_decay": section.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=section.learning_rate,
        betas=section.betas,
        eps=section.eps,
        fused=True,
    )


def _muon(section: OptimizerSection, matrices: list[nn.Parameter]) -> torch.optim.Muon:
    """Torch's Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    Each update is a matrix with singular values near 1, times 0.2 * sqrt(longer side): the size of
    an AdamW update, so that one learning rate and weight decay suit both (Liu et al. 2025, "Muon is
    Scalable for LLM Training", https://arxiv.org/abs/2502.16982, section 2.2).
    """
    return torch.optim.Muon(
        matrices,
        lr=section.learning_rate,
        weight_decay=section.weight_decay,
        momentum=section.momentum,
        ns_steps=section.orthogonal_steps,
        adjust_lr_fn="match_rms_adamw",
    )


class Combined:
    """Optimizers of different parameters, used as one.

    Attributes:
        param_groups: those of all parts, shared with them: a rate set here is set there.
        state: by parameter, shared with all parts.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        self.param_groups: list[dict[str, Any]] = [g for part in parts for g in part.param_groups]
        self.state: dict[nn.Parameter, Any] = defaultdict(dict)
        for part in parts:
            part.state = self.state  # type: ignore[assignment]

    def step(self) -> None:
        """Update all parameters."""
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad()


Optimizer = torch.optim.Optimizer | Combined
"""What the loop updates weights with."""
