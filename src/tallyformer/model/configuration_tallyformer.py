"""The shape of a TallyFormer model, as a Hugging Face configuration.

This file travels inside every exported model folder, so it imports nothing but transformers.
"""

from typing import Any, ClassVar

from transformers import PreTrainedConfig

_CHOICES = {
    "norm_type": ("rmsnorm", "layernorm"),
    "norm_placement": ("pre", "post"),
    "mlp_type": ("gelu", "swiglu"),
    "rope_layout": ("interleaved", "half"),
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_DEFAULT_ROPE_THETA = 10_000.0


class TallyFormerConfig(PreTrainedConfig):  # type: ignore[misc]
    """Every number that decides the tensors and the arithmetic of a model.

    The defaults are tally-51m: 50,915,840 parameters.

    Args:
        vocab_size: rows of the token embedding.
        hidden_size: width D of the residual stream.
        num_hidden_layers: blocks.
        num_attention_heads: heads H; the head size D / H must be a whole even number.
        intermediate_size: width F of the MLP.
        max_position_embeddings: context the model is trained for. A longer input still computes.
        norm_type: "rmsnorm", or "layernorm" (then `norm_bias` says whether it has a bias).
        norm_placement: "pre" is `x + f(norm(x))`, "post" is `norm(x + f(x))`.
        norm_eps: added to the mean square (or variance) inside the root.
        norm_bias: a bias in every LayerNorm; RMSNorm has none.
        mlp_type: "gelu" is `fc2(gelu(fc1(x)))`, "swiglu" is `fc2(silu(gate(x)) * fc1(x))`.
        attention_bias: a bias on query, key and value.
        proj_bias: a bias on the attention's output projection `proj`.
        mlp_in_bias: a bias on `fc1` and, with swiglu, on `gate`.
        mlp_out_bias: a bias on `fc2`.
        rope_layout: which channels of a head rotate together: "interleaved" (2i and 2i + 1, as
            in GPT-J) or "half" (i and i + E/2, as in Llama).
        rope_parameters: the rotary settings in transformers' form, `{"rope_type": "default",
            "rope_theta": 10000.0}`; its scaled types (linear, yarn, ...) work too. The base
            alone may be given as `rope_theta=...`.
        dropout: probability in [0, 1) for embeddings, attention weights and both residual branches.
        initializer_range: standard deviation of the initial weights. `proj` and `fc2` get
            it divided by `sqrt(2 * num_hidden_layers)`.
        tie_word_embeddings: the head shares the token embedding's matrix.
        use_cache: `forward` returns a key-value cache by default (outside training).
        bos_token_id: first token of a document, or None.
        eos_token_id: last token of a document, several of them, or None.
        pad_token_id: token that fills short rows, or None.

    Raises:
        ValueError: a field is out of range, or two fields contradict each other.
    """

    model_type: ClassVar[str] = "tallyformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]
    _auto_class: ClassVar[str | None] = "AutoConfig"
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {
        "token_embed": "free_full_weight",
        "blocks.*": "free_full_weight",
        "final_norm": "keep_full_weight",
    }

    vocab_size: int = 50260
    hidden_size: int = 512
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    max_position_embeddings: int = 256
    norm_type: str = "rmsnorm"
    norm_placement: str = "pre"
    norm_eps: float = 1e-8
    norm_bias: bool = False
    mlp_type: str = "gelu"
    attention_bias: bool = False
    proj_bias: bool = True
    mlp_in_bias: bool = False
    mlp_out_bias: bool = True
    rope_layout: str = "interleaved"
    rope_parameters: dict[str, Any] | None = None
    dropout: float = 0.1
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = 50257

    def __post_init__(self, **kwargs: Any) -> None:
        """Check every field; `kwargs` are those that are not fields of this class."""
        self.rope_parameters = _one_rope_base(self.rope_parameters, kwargs)
        super().__post_init__(**kwargs)
        self._check_choices()
        self._check_ranges()
        self._check_heads()

    @property
    def head_dim(self) -> int:
        """Channels E of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies."""
        return float((self.rope_parameters or {}).get("rope_theta", _DEFAULT_ROPE_THETA))

    @property
    def base_model_tp_plan(self) -> dict[str, str]:
        """How transformers splits the blocks' matrices over devices (`tp_plan="auto"`).

        A device has some of the heads and some of the MLP's channels: what makes them is split
        by output, what reads them by input, and the sum over the devices is what a block adds.
        The number of devices must divide the number of heads.
        """
        gate = {"blocks.*.mlp.gate": "colwise"} if self.mlp_type == "swiglu" else {}
        return {
            "blocks.*.attention.query": "colwise",
            "blocks.*.attention.key": "colwise",
            "blocks.*.attention.value": "colwise",
            "blocks.*.attention.proj": "rowwise",
            "blocks.*.mlp.fc1": "colwise",
            **gate,
            "blocks.*.mlp.fc2": "rowwise",
        }

    def _check_choices(self) -> None:
        for field, allowed in _CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(
                    f"TallyFormerConfig.{field}: {value!r} is unknown. Use one of {allowed}."
                )
        if self.norm_bias and self.norm_type != "layernorm":
            raise ValueError(
                f"TallyFormerConfig.norm_bias: {self.norm_type} has no bias. "
                "Set norm_bias=False or norm_type='layernorm'."
            )

    def _check_ranges(self) -> None:
        for field in _SIZES:
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"TallyFormerConfig.{field}: {value!r} is not a size. Use a whole number >= 1."
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"TallyFormerConfig.dropout: {self.dropout!r} is not in [0, 1). "
                "Use 0.0 to switch dropout off."
            )
        for field in ("norm_eps", "initializer_range"):
            value = getattr(self, field)
            if not value >= 0.0:
                raise ValueError(
                    f"TallyFormerConfig.{field}: {value!r} is negative. Use a number >= 0."
                )

    def _check_heads(self) -> None:
        where = f"hidden_size {self.hidden_size}, num_attention_heads {self.num_attention_heads}"
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"TallyFormerConfig.num_attention_heads: {where}: the heads do not divide the "
                "hidden size. Choose a divisor of hidden_size."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"TallyFormerConfig.num_attention_heads: {where}: the head size {self.head_dim} "
                "is odd, and rotary positions turn pairs of channels. Choose an even head size."
            )


def _one_rope_base(given: dict[str, Any] | None, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Return a copy of the rotary settings, or raise where they contradict `rope_theta`.

    transformers would silently prefer the base inside `rope_parameters`, and would write its
    defaults into the caller's dictionary.
    """
    theta = kwargs.get("rope_theta")
    settings = dict(given) if given is not None else None
    inner = (settings or {}).get("rope_theta")
    if theta is not None and inner is not None and theta != inner:
        raise ValueError(
            f"TallyFormerConfig.rope_theta: {theta} contradicts rope_parameters['rope_theta'] "
            f"{inner}. Give one of them."
        )
    base = theta if theta is not None else inner
    if base is not None and not base > 0.0:
        raise ValueError(f"TallyFormerConfig.rope_theta: {base!r} is not a base. Use a number > 0.")
    return settings
