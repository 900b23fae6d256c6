"""The reference model's names of modules and tensors, and ours."""

from __future__ import annotations

import re

PREFIX = re.compile(r"^(?:_orig_mod\.|module\.)+")
_BLOCK = re.compile(r"^attn_blocks\.(\d+)\.(.+)$")
_IN_BLOCK = {
    "ln1": "attn_norm",
    "ln2": "mlp_norm",
    "attn.query": "attention.query",
    "attn.key": "attention.key",
    "attn.value": "attention.value",
    "attn.proj": "attention.proj",
    "mlp.hidden": "mlp.fc1",
    "mlp.proj": "mlp.fc2",
}
_OUTSIDE = {
    "token_embed": "model.token_embed",
    "layer_norm": "model.final_norm",
    "lm_head": "lm_head",
}


def our_tensor(name: str) -> str | None:
    """Our name of a tensor, or None if the reference model has no such tensor."""
    module, _, kind = name.rpartition(".")
    ours = our_module(module)
    if ours is None:
        return None
    if ours.endswith("norm"):
        return {"scale": f"{ours}.weight", "bias": f"{ours}.bias"}.get(kind)
    return f"{ours}.{kind}" if kind in ("weight", "bias") else None


def our_module(name: str) -> str | None:
    """Our name of a module, or None if the reference model has no such module with weights."""
    block = _BLOCK.match(name)
    if block is None:
        return _OUTSIDE.get(name)
    inner = _IN_BLOCK.get(block.group(2))
    return f"model.blocks.{block.group(1)}.{inner}" if inner else None
