"""How many parameters a configuration has, and what a token costs. Loads without torch.

Letters: V vocabulary, D hidden size, F MLP width, L blocks, C context.
"""

from collections.abc import Mapping
from typing import Any

ConfigLike = Mapping[str, Any] | object


def count_parameters(config: ConfigLike) -> int:
    """Count the trainable numbers of the model that `config` describes, exactly.

    Formula, with m = 3 input and output matrices for swiglu and 2 for gelu:
    `V*D * (1 if tied else 2) + L * (4*D*D + m*D*F + biases + 2*norm) + norm`, where a norm is D
    scales, and D more with a bias. It is tested against the real model.

    Args:
        config: a mapping or an object with the fields of `TallyFormerConfig`; a field it lacks is
            an error, so that a default changed in one place cannot be forgotten here.

    Raises:
        ValueError: a field is missing.
    """
    hidden = _field(config, "hidden_size")
    norm = hidden * (2 if _field(config, "norm_bias") else 1)
    tables = 1 if _field(config, "tie_word_embeddings") else 2
    per_block = _block_matrices(config) + _block_biases(config) + 2 * norm
    embeddings = tables * _field(config, "vocab_size") * hidden
    return int(embeddings + _field(config, "num_hidden_layers") * per_block + norm)


def flops_per_token(config: ConfigLike, context: int, backward: bool = True) -> float:
    """Return the mean floating-point operations that one token of a full context costs.

    A multiply-add counts as 2. Forward: 2 for every weight of a matrix product (the blocks and
    the head, not the embedding lookup), plus attention. A query at position t scores and mixes
    t + 1 keys, on average (C + 1) / 2: only the causal half is counted, as the kernels compute
    it, so attention costs `2 * 2 * D * (C + 1) / 2` a block. Backward costs twice the forward,
    one product for the input and one for the weight, hence the factor 3 together.
    Norms, activations, rotary turns and softmax are left out: they are below 2% from D = 512 on.

    Sources: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1,
    https://arxiv.org/abs/2001.08361; Chowdhery et al. 2022, "PaLM", appendix B,
    https://arxiv.org/abs/2204.02311. Both count attention over all C keys; a figure of theirs is
    larger by `3 * 2 * D * (C - 1) * L` with the backward pass.

    Args:
        config: as in `count_parameters`.
        context: tokens C of one sequence, or of one document where documents are packed.
        backward: add the backward pass, for training.

    Raises:
        ValueError: a field is missing, or `context` is below 1.
    """
    if context < 1:
        raise ValueError(f"flops_per_token: context {context} is not a length. Use a number >= 1.")
    hidden, layers = _field(config, "hidden_size"), _field(config, "num_hidden_layers")
    head = _field(config, "vocab_size") * hidden
    products = 2 * (layers * _block_matrices(config) + head)
    attention = layers * 4 * hidden * (context + 1) / 2
    return float(products + attention) * (3 if backward else 1)


def _block_matrices(config: ConfigLike) -> int:
    hidden, inner = _field(config, "hidden_size"), _field(config, "intermediate_size")
    mlp = 3 if _field(config, "mlp_type") == "swiglu" else 2
    return int(4 * hidden * hidden + mlp * hidden * inner)


def _block_biases(config: ConfigLike) -> int:
    hidden, inner = _field(config, "hidden_size"), _field(config, "intermediate_size")
    entrances = 2 if _field(config, "mlp_type") == "swiglu" else 1
    return int(
        3 * hidden * _field(config, "attention_bias")
        + hidden * _field(config, "proj_bias")
        + entrances * inner * _field(config, "mlp_in_bias")
        + hidden * _field(config, "mlp_out_bias")
    )


def _field(config: ConfigLike, name: str) -> Any:
    if isinstance(config, Mapping):
        if name in config:
            return config[name]
    elif hasattr(config, name):
        return getattr(config, name)
    raise ValueError(
        f"count_parameters: the configuration has no field {name!r}. "
        "Pass a TallyFormerConfig, or a mapping with all of its fields."
    )
