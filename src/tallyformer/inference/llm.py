"""`LLM`: a model folder that answers prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallyformer.errors import InvalidRequestError, UsageError
from tallyformer.inference.engine.client import EngineClient, EngineRequest
from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.fitting import fit_messages
from tallyformer.inference.outputs import Output, Piece, without_first_space
from tallyformer.inference.prompts import (
    Prompt,
    check_one_sample,
    check_params,
    one_for_each,
    prompt_ids,
    prompts_of,
)
from tallyformer.inference.ready_model import ReadyModel
from tallyformer.inference.runner_names import RunnerName
from tallyformer.inference.runners import load_ready
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.quoting import quoted
from tallyformer.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

ANSWER_SHARE = 4
"""A conversation may fill the context but for 1/4 of it, so that an answer has room."""


class LLM:
    """A causal language model and its tokenizer.

    Generation never ends because the context is full: its newest half is kept then. A text
    prompt never becomes control tokens, whatever it spells. All that is asked at the same time,
    open streams and other threads included, is answered together, by one engine.

    Args:
        model: a transformers model in eval mode, or one with its runner. Some of its
            weights may be copied now, and beginnings of prompts are kept: one that has changed
            needs a new LLM.
        tokenizer: its own.

    Attributes:
        tokenizer: the model's.
        context_length: tokens the model sees at once.
        eos_ids: ids that end an answer.
        client: where all that is asked of this model at the same time comes together.
        default_params: how the model's folder wants to be sampled, used where no params are
            given.
        runner_name: what computes the model, "native" or "torch".
        device: where the weights are: "cpu", "cuda:0", ...
        dtype: of the weights: "float32", "bfloat16", ...
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        served = model if isinstance(model, ReadyModel) else _with_torch(model, tokenizer)
        self._served = served
        self.tokenizer = tokenizer
        self.context_length = served.context
        self.eos_ids = served.eos_ids
        self.default_params = served.default_params
        self.runner_name: RunnerName = served.runner_name
        self.device = served.device
        self.dtype = served.dtype
        engine = Engine(served.runner, tokenizer, context=served.context, eos_ids=served.eos_ids)
        self.client = EngineClient(engine)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        runner: RunnerName | None = None,
        *,
        batch_invariant: bool = False,
    ) -> LLM:
        """Load a TallyFormer folder, or one of another model that transformers knows.

        Args:
            folder: a Hugging Face folder with tokenizer files.
            dtype: of the weights, "float32", "bfloat16", "float16" (torch alone), "int8" or "int4"
                (native alone); None keeps the folder's.
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the best one, see `choose_device`.
            runner: what computes the model, "native" or "torch"; None takes native where it can,
                see `choose_runner`.
            batch_invariant: a prompt's logits are the same bits, and so its greedy and seeded
                answers the same, alone or among any others. Native is always so. With torch
                every step then computes as many rows as there are slots, and prompts one by one,
                padded to the whole context; TallyFormers and stock Llamas alone. It does not
                cover samples and prompts that share their beginning (`n`, `prefix_key`).

        Raises:
            ArtifactError, CheckpointError, TokenizerError: the folder is missing or damaged,
                differs from the manifest that vouches for it, or needs packages that are not
                installed.
            UsageError: dtype, device or runner is unknown, not there or not able to,
                `batch_invariant` is not possible, or `folder` is not a path.
        """
        ready, tokenizer = load_ready(
            folder, dtype=dtype, device=device, runner=runner, batch_invariant=batch_invariant
        )
        return cls(ready, tokenizer)

    @property
    def model(self) -> Any:
        """The transformers model, where the runner is torch.

        Raises:
            UsageError: there is none.
        """
        if self._served.transformers_model is None:
            raise UsageError(
                "LLM.model: the native runner computes without transformers, so there is no such "
                "model. Load the folder with runner='torch'"
            )
        return self._served.transformers_model

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        prefix_key: Hashable = None,
        on_finished: Callable[[], object] = lambda: None,
    ) -> list[Output]:
        """Answer prompts, many at once; an answer does not depend on the others.

        Args:
            prompts: one prompt or several, each a text or its ids (a list, or an array of one
                dimension). An empty one starts from the end-of-text, as a document does.
            params: settings for all prompts, or one for each; by default the folder's.
            prefix_key: who asks: any value, such as a name. Where prompts with the same one
                begin alike, that part is computed once, and kept for a while; None shares
                nothing.
            on_finished: called whenever an output is finished, to show progress.

        Returns:
            One output a prompt, in their order; with `n` samples so many, one after another.

        Raises:
            InvalidRequestError: an id is not in the vocabulary, a prompt is neither text nor
                ids, or there are not as many params as prompts.
        """
        several = prompts_of(prompts)
        settings = one_for_each(self.settings(params), len(several))
        asked = [self.asked(p, s, prefix_key) for p, s in zip(several, settings, strict=True)]
        return self.client.answer(asked, on_finished)

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
        check_params(params, self.tokenizer.vocab_size)
        try:
            hash(prefix_key)
        except TypeError:
            expected = "a value that can be a dictionary's key, such as a name"
            told = f"prefix_key: must be {expected}; it is {quoted(prefix_key)}"
            raise InvalidRequestError(told) from None
        ids = prompt_ids(prompt, self.tokenizer)
        return EngineRequest(ids or [self.tokenizer.eot_id], params, prefix_key)


def _with_torch(model: Any, tokenizer: Tokenizer) -> ReadyModel:
    from tallyformer.inference.torch_model import with_torch  # loads torch and transformers

    return with_torch(model, tokenizer)
