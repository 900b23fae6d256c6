"""How many parameters a configuration has, and what a token costs. Loads without torch.

Letters: V vocabulary, D hidden size, F MLP width, L blocks, C context.
"""

from collections.abc import Collection, Mapping
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
    products = 2 * (_all_blocks(config) + _head(config))
    return float(products + _attention(config, context)) * (3 if backward else 1)


def lora_flops_per_token(
    config: ConfigLike,
    context: int,
    *,
    rank: int,
    target_modules: Collection[str],
    modules_to_save: Collection[str],
) -> float:
    """Return what one token costs forward and backward when only adapters are trained.

    Formula, with N the weights of the blocks' matrices, A the forward cost of attention, and
    N_lora = `rank` * (inputs + outputs) of every adapted matrix:
    `4*N + 3*A + 6*N_lora + (6 if the head is trained else 4) * V*D`.
    A frozen matrix needs the product for its input's gradient, which continues to earlier adapters,
    but none for its own. The first block's needs neither where the embedding is frozen too; that
    is not taken off. As in `flops_per_token`, every token is counted as if it had a label.

    Source: Hu et al. 2021, "LoRA", section 4.1, https://arxiv.org/abs/2106.09685.

    Args:
        config: as in `count_parameters`.
        context: as in `flops_per_token`.
        rank: of the adapters.
        target_modules: names of the adapted matrices in a block.
        modules_to_save: what is trained whole; only "lm_head" costs anything.

    Raises:
        ValueError: a field is missing, or `context` is below 1.
    """
    adapted = count_lora_parameters(
        config, rank=rank, target_modules=target_modules, modules_to_save=()
    )
    head = head_flops(config, trained="lm_head" in modules_to_save)
    lora = 6 * adapted
    return float(4 * _all_blocks(config) + 3 * _attention(config, context) + lora + head)


def count_lora_parameters(
    config: ConfigLike,
    *,
    rank: int,
    target_modules: Collection[str],
    modules_to_save: Collection[str],
) -> int:
    """Count the numbers that are trained when a model gets adapters.

    Args:
        config: as in `count_parameters`.
        rank: of the adapters.
        target_modules: names of the adapted matrices in a block.
        modules_to_save: what is trained whole; only "lm_head" is counted.
    """
    hidden, inner = _field(config, "hidden_size"), _field(config, "intermediate_size")
    sides = dict.fromkeys(("query", "key", "value", "proj"), 2 * hidden)
    sides |= dict.fromkeys(("fc1", "fc2", "gate"), hidden + inner)
    adapted = rank * sum(sides.get(name, 0) for name in target_modules)
    head = _head(config) if "lm_head" in modules_to_save else 0
    return int(_field(config, "num_hidden_layers") * adapted + head)


def activation_bytes(config: ConfigLike) -> float:
    """Return about how many bytes of a token the forward pass keeps for the backward pass.

    Float32; in every block 12 vectors of the hidden size (both norms, query, key, value, attention,
    outputs, residuals) and 2 of the MLP's width, 3 where it is gated. The head's loss is computed
    in chunks and keeps next to nothing. Against trainings on a CPU of models with 4 and 6 blocks it
    was right within a tenth.
    """
    hidden, inner = _field(config, "hidden_size"), _field(config, "intermediate_size")
    mlp = 3 if _field(config, "mlp_type") == "swiglu" else 2
    return float(4 * _field(config, "num_hidden_layers") * (12 * hidden + mlp * inner))


def head_flops(config: ConfigLike, *, trained: bool = True) -> float:
    """Return what the head costs of one labelled token, forward and backward.

    `flops_per_token` and `lora_flops_per_token` hold it for every token; the head is computed for
    those alone that have a label, which in fine-tuning are the answers.

    Args:
        config: as in `count_parameters`.
        trained: whether the head's own gradient is computed.
    """
    return float((6 if trained else 4) * _head(config))


def _head(config: ConfigLike) -> int:
    return int(_field(config, "vocab_size") * _field(config, "hidden_size"))


def _all_blocks(config: ConfigLike) -> int:
    return int(_field(config, "num_hidden_layers") * _block_matrices(config))


def _attention(config: ConfigLike, context: int) -> float:
    """Forward, of a token: see `flops_per_token`."""
    if context < 1:
        raise ValueError(f"flops_per_token: context {context} is not a length. Use a number >= 1.")
    hidden, layers = _field(config, "hidden_size"), _field(config, "num_hidden_layers")
    return float(layers * 4 * hidden * (context + 1) / 2)


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
