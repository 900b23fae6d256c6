"""Hand a TallyFormer of Llama's shape to software that knows Llama.

The preset `tally-51m-llama` has that shape: RMSNorm before each half, SwiGLU, no biases, rotary
positions in halves. Only names differ, so the logits are the same.
"""

from copy import deepcopy
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from .configuration_tallyformer import TallyFormerConfig
from .modeling_tallyformer import TallyFormerForCausalLM

_LLAMA_SHAPE: dict[str, Any] = {
    "norm_type": "rmsnorm",
    "norm_placement": "pre",
    "mlp_type": "swiglu",
    "attention_bias": False,
    "proj_bias": False,
    "mlp_in_bias": False,
    "mlp_out_bias": False,
    "rope_layout": "half",
}
_NAMES = (
    ("model.token_embed.", "model.embed_tokens."),
    ("model.blocks.", "model.layers."),
    ("model.final_norm.", "model.norm."),
    (".attn_norm.", ".input_layernorm."),
    (".mlp_norm.", ".post_attention_layernorm."),
    (".attention.query.", ".self_attn.q_proj."),
    (".attention.key.", ".self_attn.k_proj."),
    (".attention.value.", ".self_attn.v_proj."),
    (".attention.proj.", ".self_attn.o_proj."),
    (".mlp.gate.", ".mlp.gate_proj."),
    (".mlp.fc1.", ".mlp.up_proj."),
    (".mlp.fc2.", ".mlp.down_proj."),
)
_SAME_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "initializer_range",
    "tie_word_embeddings",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def to_llama(model: TallyFormerForCausalLM) -> LlamaForCausalLM:
    """Return a stock Llama with copies of the model's weights, the same logits and dtype.

    Llama knows dropout on attention weights alone, so that is all that remains of `dropout`
    should the result be trained on.

    Raises:
        ValueError: the model is not of Llama's shape; the message names each field in the way.
    """
    config = model.config
    if other := _other_shape(config):
        raise ValueError(
            f"to_llama: this TallyFormer is not of Llama's shape: {', '.join(other)}. "
            "Train with the preset tally-51m-llama to get a model that converts."
        )
    llama = LlamaForCausalLM(
        LlamaConfig(
            **{field: getattr(config, field) for field in _SAME_FIELDS},
            rms_norm_eps=config.norm_eps,
            rope_parameters=deepcopy(config.rope_parameters),
            attention_dropout=config.dropout,
        )
    )
    _copy(model, llama)
    return llama


def _other_shape(config: TallyFormerConfig) -> list[str]:
    """The fields that are not as Llama has them."""
    return [
        f"{field} is {getattr(config, field)!r}, not {wanted!r}"
        for field, wanted in _LLAMA_SHAPE.items()
        if getattr(config, field) != wanted
    ]


def _copy(source: TallyFormerForCausalLM, target: LlamaForCausalLM) -> None:
    """Load the renamed weights, and everything else that makes two models behave alike."""
    weights = {}
    for name, tensor in source.state_dict().items():
        for ours, theirs in _NAMES:
            name = name.replace(ours, theirs)
        weights[name] = tensor
    target.to(source.dtype).load_state_dict(weights)
    target.to(source.device).train(source.training)
    target.generation_config = deepcopy(source.generation_config)
