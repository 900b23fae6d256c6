"""TallyFormer as Hugging Face classes: embedding, blocks, final norm, heads.

This file and the ones it imports are copied into every saved folder, where
`AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` runs them without the
package: they import torch, transformers and each other, never `tallyformer`. Every class that a
folder offers is defined here, since transformers copies the file of the class that is saved.

Shapes: B batch, T queries, S keys, D hidden size, V vocabulary.
"""

import math
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .attention import TallyFormerAttention
from .block import TallyFormerBlock
from .classification import ClassifiesSequences, ClassifiesTokens
from .configuration_tallyformer import TallyFormerConfig
from .mlp import TallyFormerMLP
from .norm import TallyFormerRMSNorm, build_norm
from .protocol import CACHE_NAME, CACHE_NAMES, check_names, one_cache
from .rope import TallyFormerRotaryEmbedding

_LOSS_ARGUMENTS = ("ignore_index", "shift_labels")


class TallyFormerPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the bare model and those with a head share: initialisation, capabilities, saving."""

    config_class = TallyFormerConfig
    config: TallyFormerConfig
    base_model_prefix = "model"
    _input_embed_layer = "token_embed"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["TallyFormerBlock"]
    _skip_keys_device_placement: ClassVar[list[str]] = list(CACHE_NAMES)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": TallyFormerBlock,
        "attentions": TallyFormerAttention,
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal weights, zero biases; layers that write the residual stream start smaller.

        Each block adds to the stream twice, so without the factor its variance at the top would
        grow with the depth. Source: Radford et al. 2019 (GPT-2), section 2.3.
        """
        super()._init_weights(module)
        if getattr(module, "writes_residual", False):
            depth = 2 * self.config.num_hidden_layers
            init.normal_(module.weight, std=self.config.initializer_range / math.sqrt(depth))

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does; the folder offers every class of this file, not one alone."""
        self.config.auto_map = auto_map()
        super().save_pretrained(*args, **kwargs)


class TallyFormerModel(TallyFormerPreTrainedModel):
    """Token ids to the last hidden states."""

    _auto_class = "AutoModel"
    # By the vocabulary, as is the head, which may be the same matrix. Not in the configuration's
    # plan: transformers 5.4 reads that one alone, and cannot split an odd vocabulary.
    _tp_plan: ClassVar[dict[str, str]] = {"token_embed": "embedding_rowwise"}

    def __init__(self, config: TallyFormerConfig) -> None:
        super().__init__(config)
        self.token_embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.rotary = TallyFormerRotaryEmbedding(config)
        self.blocks = nn.ModuleList(
            TallyFormerBlock(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.final_norm = build_norm(config)
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(  # noqa: PLR0917 - transformers' interface
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the blocks.

        What surprises: `position_ids` that restart inside a row, given without a mask and without
        a cache, mark packed documents, which then do not see each other.

        Args:
            input_ids: token ids (B, T), each below `config.vocab_size`.
            attention_mask: None is plain causal. (B, S) is 1 for a token and 0 for padding, made
                causal here. (B or 1, 1, T, S) is used as it is: bool, True where a query attends,
                or a float that is added to the scores.
            position_ids: (B or 1, T); by default they count on from the cache's length.
            past_key_values: a transformers cache to read and extend.
            inputs_embeds: embeddings (B, T, D) in place of `input_ids`.
            use_cache: return a cache. By default `config.use_cache`, but never in training mode,
                where nobody reads it.
            cache: another name for `past_key_values`, as transformers has it from 5.24 on.
            kwargs: passed to the attention implementation; `output_hidden_states`,
                `output_attentions` and `return_dict` mean what they mean in transformers;
                `cache_position` (T,) is an older form of `position_ids`. `protocol.PASSED_ON`
                lists the names.

        Returns:
            `last_hidden_state` (B, T, D) after the final norm, and the cache if asked for.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds`, or a mask that the
                attention implementation cannot express.
            TypeError: an argument that nobody reads, or two caches.
        """
        check_names(self, kwargs)
        past_key_values = one_cache(self, past_key_values, cache, kwargs)
        cache_position = kwargs.pop("cache_position", None)
        if position_ids is None and cache_position is not None:
            position_ids = cache_position.unsqueeze(0)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                "TallyFormerModel.forward: give exactly one of input_ids and inputs_embeds."
            )
        if inputs_embeds is None:
            inputs_embeds = self.token_embed(input_ids)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        self._check_direction(attention_mask, kwargs)
        mask = self._mask(inputs_embeds, attention_mask, past_key_values, position_ids)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            steps = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
            position_BT = (steps + seen).unsqueeze(0)
        else:
            position_BT = position_ids

        position_embeddings = self.rotary(inputs_embeds, position_BT)
        hidden_states = self.dropout(inputs_embeds)
        for block in self.blocks[: self.config.num_hidden_layers]:
            hidden_states = block(
                hidden_states,
                attention_mask=mask,
                position_embeddings=position_embeddings,
                position_ids=position_BT,
                # Under this name gradient checkpointing finds the cache, and drops it.
                **{CACHE_NAME: past_key_values},
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_norm(hidden_states),
            **{CACHE_NAME: past_key_values},
        )

    def _check_direction(self, attention_mask: torch.Tensor | None, kwargs: dict[str, Any]) -> None:
        """Attention implementations differ in what they make of `is_causal` without a mask."""
        masked = isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4
        if kwargs.get("is_causal") is False and not masked:
            raise ValueError(
                "TallyFormerModel.forward: is_causal=False needs an attention_mask "
                "(B or 1, 1, T, S) that says which keys each query sees."
            )

    def _mask(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        position_ids: torch.Tensor | None,
    ) -> Any:
        """Return the mask in the form the configured attention wants; None where none is needed.

        `position_ids` is what the caller gave, so that the usual call does not pay for the search
        for packed documents: on a GPU it waits for the device.
        """
        implementation = self.config._attn_implementation or "eager"
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE_NAME: past_key_values},
        )
        if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
            return mask
        if "flash" in implementation:
            raise ValueError(
                f"TallyFormerModel.forward: a 4D attention_mask cannot be used with "
                f"{implementation}. Load the model with attn_implementation='sdpa', or mark packed "
                "documents by position_ids that restart at 0."
            )
        if implementation == "eager" and mask.dtype == torch.bool:
            # Eager attention adds its mask; a bool would add one where it should hide.
            lowest = torch.finfo(inputs_embeds.dtype).min
            zero = torch.zeros((), dtype=inputs_embeds.dtype, device=mask.device)
            return torch.where(mask, zero, lowest)
        return mask


class TallyFormerForCausalLM(TallyFormerPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The decoder with its next-token head."""

    _auto_class = "AutoModelForCausalLM"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.token_embed.weight"}
    _tp_plan: ClassVar[dict[str, str]] = {"lm_head": "colwise_gather_output"}
    _fsdp_plan: ClassVar[dict[str, str]] = {"lm_head": "keep_full_weight"}

    def __init__(self, config: TallyFormerConfig) -> None:
        super().__init__(config)
        self.model = TallyFormerModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(  # noqa: PLR0917 - transformers' interface
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            input_ids: as in `TallyFormerModel.forward`, like the next four.
            attention_mask: see there.
            position_ids: see there.
            past_key_values: see there.
            inputs_embeds: see there.
            labels: token ids (B, T), -100 where there is nothing to learn. They are shifted here:
                pass the input ids themselves.
            use_cache: see there.
            logits_to_keep: how many of the last positions get logits (0: all), or a tensor of the
                positions that get them.
            cache: another name for `past_key_values`.
            kwargs: passed to the blocks and to the loss function, which also knows `ignore_index`
                and `shift_labels`.

        Returns:
            `logits` (B, T, V) and, with labels, `loss`: mean cross-entropy in nats per token.

        Raises:
            TypeError: an argument that nobody reads, or two caches.
        """
        of_loss = {name: kwargs.pop(name) for name in _LOSS_ARGUMENTS if name in kwargs}
        check_names(self, kwargs)
        past_key_values = one_cache(self, past_key_values, cache, kwargs)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **{CACHE_NAME: past_key_values},
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits_BTV,
                labels=labels,
                vocab_size=self.config.vocab_size,
                **of_loss,
                **kwargs,
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE_NAME: getattr(outputs, CACHE_NAME)},
        )


class TallyFormerForSequenceClassification(ClassifiesSequences, TallyFormerPreTrainedModel):
    """The decoder with a head that labels a whole text, `config.num_labels` scores each."""

    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: TallyFormerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = TallyFormerModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()


class TallyFormerForTokenClassification(ClassifiesTokens, TallyFormerPreTrainedModel):
    """The decoder with a head that labels every token, `config.num_labels` scores each."""

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: TallyFormerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = TallyFormerModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


def auto_map() -> dict[str, str]:
    """Which class of a saved folder each of transformers' Auto classes loads."""
    classes: tuple[Any, ...] = (
        TallyFormerConfig,
        TallyFormerModel,
        TallyFormerForCausalLM,
        TallyFormerForSequenceClassification,
        TallyFormerForTokenClassification,
    )
    return {
        cls._auto_class: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for cls in classes
    }


# transformers asks these tables by name. Without its entry the Trainer would not shift the labels
# that it smooths, and a pipeline would say that it does not support the model.
for _names, _cls in (
    (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, TallyFormerForCausalLM),
    (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, TallyFormerForSequenceClassification),
    (MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, TallyFormerForTokenClassification),
):
    _names[TallyFormerConfig.model_type] = _cls.__name__

__all__ = [
    "TallyFormerAttention",
    "TallyFormerBlock",
    "TallyFormerConfig",
    "TallyFormerForCausalLM",
    "TallyFormerForSequenceClassification",
    "TallyFormerForTokenClassification",
    "TallyFormerMLP",
    "TallyFormerModel",
    "TallyFormerPreTrainedModel",
    "TallyFormerRMSNorm",
    "TallyFormerRotaryEmbedding",
    "auto_map",
]
