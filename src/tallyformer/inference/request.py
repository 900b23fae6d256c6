"""The state of one prompt that is being answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch

from tallyformer.inference.outputs import FinishReason, Output
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.stop import StopMatcher
from tallyformer.tokenizer.stream import StreamDecoder


class Request:
    """A prompt, its settings, its own random numbers, and the answer so far.

    Args:
        prompt_ids: at least one id.
        params: the settings; `params.seed` seeds `generator`.
        eos_ids: the model's end-of-text ids.
        decoder: turns this request's ids into text.
        generator: on the CPU, whatever the model's device, so that a seed means the same there.

    Attributes:
        token_ids: generated so far.
        counts: how often each id has been generated.
        finish_reason: None while the answer continues.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        eos_ids: Collection[int],
        decoder: StreamDecoder,
        generator: torch.Generator,
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.params = params
        self.generator = generator
        self.token_ids: list[int] = []
        self.counts: Counter[int] = Counter()
        self.finish_reason: FinishReason | None = None
        self._end_ids = set(params.stop_token_ids) | (set() if params.ignore_eos else set(eos_ids))
        self._decoder = decoder
        self._stop = StopMatcher(params.stop_strings)
        self._text: list[str] = []

    def push(self, token_id: int) -> str:
        """Take a generated id; return the text that is certain now; maybe set `finish_reason`."""
        self.token_ids.append(token_id)
        self.counts[token_id] += 1
        ends = token_id in self._end_ids
        text = self._stop.push("" if ends else self._decoder.push(token_id))
        if self._stop.matched:
            self.finish_reason = "stop"
        elif ends or len(self.token_ids) >= self.params.max_tokens:
            text += self._flush()
            self.finish_reason = "stop" if ends or self._stop.matched else "length"
        self._text.append(text)
        return text

    def _flush(self) -> str:
        text = self._stop.push(self._decoder.finish())
        return text + self._stop.finish()

    @property
    def ids(self) -> list[int]:
        """The prompt and the answer so far."""
        return self.prompt_ids + self.token_ids

    def output(self) -> Output:
        """The finished answer."""
        assert self.finish_reason is not None
        return Output(
            text="".join(self._text),
            token_ids=list(self.token_ids),
            finish_reason=self.finish_reason,
            prompt_token_ids=list(self.prompt_ids),
        )
