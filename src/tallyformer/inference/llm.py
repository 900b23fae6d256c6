"""`LLM`: a model folder that answers prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tallyformer.artifacts.model_folder import check_model_folder
from tallyformer.artifacts.paths import usable_path
from tallyformer.errors import ArtifactError, TokenizerError
from tallyformer.inference.engine.client import EngineClient, EngineRequest
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.fitting import fit_messages
from tallyformer.inference.folder_defaults import check_settings, sampling_defaults
from tallyformer.inference.outputs import Output, Piece, without_first_space
from tallyformer.inference.prompts import (
    Prompt,
    check_one_sample,
    check_params,
    one_for_each,
    prompt_ids,
    prompts_of,
)
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.model.device import choose_device
from tallyformer.model.loading import load_model
from tallyformer.tokenizer.tokenizer import Tokenizer

ANSWER_SHARE = 4
"""A conversation may fill the context but for 1/4 of it, so that an answer has room."""


class LLM:
    """A causal language model and its tokenizer.

    Generation never ends because the context is full: its newest half is kept then. A text
    prompt never becomes control tokens, whatever it spells. All that is asked at the same time,
    open streams and other threads included, is answered together, by one engine.

    Attributes:
        model: the transformers model.
        tokenizer: its tokenizer.
        context_length: tokens the model sees at once.
        eos_ids: ids that end an answer.
        client: where all that is asked of this model at the same time comes together.
        default_params: how the model's folder wants to be sampled, used where no params are
            given.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = _context_length(model)
        self.eos_ids = _eos_ids(model, tokenizer)
        self.default_params = sampling_defaults(model)
        self._rows = int(model.get_input_embeddings().num_embeddings)
        if tokenizer.vocab_size > self._rows:
            raise TokenizerError(
                f"{model.config.name_or_path}: the tokenizer has {tokenizer.vocab_size} ids and "
                f"the model {self._rows}, so they do not belong together. Give the tokenizer that "
                "the model was trained with, or resize the model's embeddings to it"
            )
        runner = TorchRunner(model, tokenizer.vocab_size)
        self.client = EngineClient(
            Engine(runner, tokenizer, context=self.context_length, eos_ids=self.eos_ids)
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> LLM:
        """Load a TallyFormer folder, or one of another model that transformers knows.

        Args:
            folder: a Hugging Face folder with tokenizer files.
            dtype: of the weights, "float32", "bfloat16" or "float16"; None keeps the folder's.
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the best one, see `choose_device`.

        Raises:
            ArtifactError, CheckpointError, TokenizerError: the folder is missing or damaged, or
                differs from the manifest that vouches for it.
            UsageError: dtype or device is unknown or not there, or `folder` is not a path.
        """
        check_model_folder(usable_path(folder))
        check_settings(Path(folder))
        model = load_model(folder, dtype=dtype, device=choose_device(device))
        return cls(model, Tokenizer.from_pretrained(folder))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        prefix_key: Hashable = None,
    ) -> list[Output]:
        """Answer prompts, many at once; an answer does not depend on the others.

        Args:
            prompts: one prompt or several, each a text or its ids (a list, or an array of one
                dimension). An empty one starts from the end-of-text, as a document does.
            params: settings for all prompts, or one for each; by default the folder's.
            prefix_key: who asks: any value, such as a name. Where prompts with the same one
                begin alike, that part is computed once, and kept for a while; None shares
                nothing.

        Returns:
            One output a prompt, in their order; with `n` samples so many, one after another.

        Raises:
            InvalidRequestError: an id is not in the vocabulary, a prompt is neither text nor
                ids, or there are not as many params as prompts.
        """
        several = prompts_of(prompts)
        settings = one_for_each(self.settings(params), len(several))
        asked = [self.asked(p, s, prefix_key) for p, s in zip(several, settings, strict=True)]
        return self.client.answer(asked)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        prefix_key: Hashable = None,
    ) -> Iterator[Piece]:
        """Answer one prompt piece by piece, as text becomes certain; samples take turns.

        Args, errors: as for `generate`; they are raised at the call, not at the first piece.
        """
        return self.client.stream(self.asked(prompt, self.settings(params), prefix_key))

    def chat(self, messages: Any, params: SamplingParams | None = None) -> Output:
        """Answer a conversation; an answer also ends where the model would begin a user's turn.

        Its text comes without the space that the chat format has before an answer.

        Args:
            messages: {"role", "content"}: an optional system message, then user and assistant
                in turn, the last one the user's. A content is a text or a list of text parts. A
                text in place of messages is one question.
            params: settings; by default the folder's.

        Raises:
            InvalidRequestError: these are not messages, a role is unknown or out of turn, or the
                system message is too long for the model.
        """
        settings = self.chat_params(self.settings(params))
        check_one_sample(settings)
        output = self.generate(self.chat_prompt(messages), settings)[0]
        return dataclasses.replace(output, text=output.text.lstrip())

    def stream_chat(self, messages: Any, params: SamplingParams | None = None) -> Iterator[Piece]:
        """Answer a conversation piece by piece; all pieces together are what `chat` gives.

        Args, errors: as for `chat`; they are raised at the call, not at the first piece.
        """
        settings = self.chat_params(self.settings(params))
        return without_first_space(self.stream(self.chat_prompt(messages), settings))

    def chat_prompt(self, messages: Any, answer_share: int = ANSWER_SHARE) -> list[int]:
        """Ids of a conversation up to where the assistant's answer begins.

        The system message stays; of the turns, the newest whole ones that fit; a last question
        that is too long by itself loses its beginning.

        Args:
            messages: as for `chat`.
            answer_share: 1/answer_share of the context is left to the answer.

        Raises:
            InvalidRequestError: as for `chat`.
        """
        return fit_messages(
            self.tokenizer, messages, context=self.context_length, answer_share=answer_share
        )

    def chat_params(self, params: SamplingParams) -> SamplingParams:
        """`params` with `<|user|>` as one more stop token, unless end-of-text is ignored."""
        if params.ignore_eos:
            return params
        ids = (*params.stop_token_ids, self.tokenizer.user_id)
        return dataclasses.replace(params, stop_token_ids=ids)

    def settings(self, params: Any) -> Any:
        """The params that are given, or the folder's where none are."""
        return self.default_params if params is None else params

    def asked(
        self, prompt: Prompt, params: SamplingParams, prefix_key: Hashable = None
    ) -> EngineRequest:
        """A prompt's ids and its settings, as the engine takes them.

        Raises:
            InvalidRequestError: as for `generate`.
        """
        check_params(params, self._rows)
        ids = prompt_ids(prompt, self.tokenizer, self._rows)
        return EngineRequest(ids or [self.tokenizer.eot_id], params, prefix_key)


def _context_length(model: Any) -> int:
    context = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(context, int) or context < 2:
        raise ArtifactError(
            f"{model.config.name_or_path}: config.json does not say how many tokens the model "
            f"reads (max_position_embeddings: {context!r}). Add it"
        )
    return context


def _eos_ids(model: Any, tokenizer: Tokenizer) -> frozenset[int]:
    generation = getattr(model, "generation_config", None)
    found = getattr(generation, "eos_token_id", None)
    if found is None:
        found = model.config.eos_token_id
    ids = [found] if isinstance(found, int) else list(found or ())
    return frozenset({*ids, tokenizer.eot_id})
