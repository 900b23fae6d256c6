"""What a classifier of sequences or of tokens does with the decoder's hidden states.

Labels, kinds of loss and results are those of transformers' `...ForSequenceClassification` and
`...ForTokenClassification`; a stock Llama with the same weights gives the same logits.

Shapes: B batch, T positions, S keys, D hidden size, L labels.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import SequenceClassifierOutputWithPast, TokenClassifierOutput
from transformers.utils import can_return_tuple

from .protocol import CACHE_NAME, check_names, one_cache

_LOSS_ARGUMENTS = ("ignore_index", "num_items_in_batch")


class ClassifiesSequences:
    """One row of label scores for each sequence, read at its last token.

    The class that inherits it has a decoder `model` and a linear layer `score`, (D, L).
    """

    # Its loss over labels of one number or of several does not know `num_items_in_batch`, so
    # transformers' Trainer has to average over accumulated batches itself.
    accepts_loss_kwargs = False

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(  # noqa: PLR0917 - transformers' interface
        self: Any,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast:
        """Score each sequence.

        What surprises: the last token is found by a mask (B, S) where one is given. Only without
        one does `config.pad_token_id` say what padding is.

        Args:
            input_ids: as in `TallyFormerModel.forward`, like the next four.
            attention_mask: see there.
            position_ids: see there.
            past_key_values: see there.
            inputs_embeds: see there.
            labels: (B,) class numbers; (B,) or (B, L) floats for regression; (B, L) floats in
                [0, 1] for several labels at once. `config.problem_type` says which, and is
                set by the first labels where it is None.
            use_cache: see there.
            cache: another name for `past_key_values`.
            kwargs: passed to the blocks; the loss over class numbers also knows
                `ignore_index` and `num_items_in_batch`.

        Returns:
            `logits` (B, L) and, with labels, `loss`.

        Raises:
            ValueError: several rows of ids, but neither a mask nor a pad token.
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
        hidden_BTD = outputs.last_hidden_state
        last_B = _last_tokens(hidden_BTD, input_ids, attention_mask, self.config.pad_token_id)
        rows = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
        logits_BL = self.score(hidden_BTD[rows, last_B])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, pooled_logits=logits_BL, config=self.config, **of_loss
            )
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits_BL,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE_NAME: getattr(outputs, CACHE_NAME)},
        )


class ClassifiesTokens:
    """One row of label scores for each token.

    The class that inherits it has a decoder `model`, a `dropout` and a linear layer `score`,
    (D, L).
    """

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(  # noqa: PLR0917 - transformers' interface
        self: Any,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Score each token.

        Args:
            input_ids: as in `TallyFormerModel.forward`, like the next four.
            attention_mask: see there.
            position_ids: see there.
            past_key_values: see there.
            inputs_embeds: see there.
            labels: class numbers (B, T), each that of the token in its place; -100 where there is
                nothing to learn, as on padding.
            use_cache: see there.
            cache: another name for `past_key_values`.
            kwargs: passed to the blocks; the loss also knows `ignore_index` and
                `num_items_in_batch`.

        Returns:
            `logits` (B, T, L) and, with labels, `loss`: mean cross-entropy in nats per token.

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
        logits_BTL = self.score(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits_BTL, labels=labels, config=self.config, **of_loss
            )
        return TokenClassifierOutput(
            loss=loss,
            logits=logits_BTL,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _last_tokens(
    hidden_BTD: torch.Tensor,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    pad_token_id: int | None,
) -> torch.Tensor:
    """The place of each row's last token, whichever side is padded; 0 if it has none."""
    rows, places = hidden_BTD.shape[:2]
    if attention_mask is not None and attention_mask.ndim == 2:
        is_token_BT = attention_mask[:, -places:] != 0  # a cache's keys come first
    elif input_ids is not None and pad_token_id is not None:
        is_token_BT = input_ids != pad_token_id
    elif input_ids is not None and rows > 1:
        raise ValueError(
            "TallyFormerForSequenceClassification.forward: which of several rows are padded is "
            "unknown. Give an attention_mask (B, S), or set config.pad_token_id."
        )
    else:
        is_token_BT = hidden_BTD.new_ones((rows, places), dtype=torch.bool)
    place_T = torch.arange(places, device=hidden_BTD.device)
    return (place_T * is_token_BT.to(hidden_BTD.device)).argmax(-1)
