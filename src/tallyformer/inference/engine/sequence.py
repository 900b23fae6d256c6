"""One prompt that is being answered: its ids, settings and state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Literal

from tallyformer.inference.engine.runner import Row
from tallyformer.inference.outputs import FinishReason, Piece
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.inference.stop import StopMatcher
from tallyformer.keyed_random import key_of, uniform_at

if TYPE_CHECKING:
    from tallyformer.tokenizer.stream import StreamDecoder

State = Literal["waiting", "running", "finished"]
"""`waiting`: its window has to be computed. `running`: its keys and values are kept."""


class Sequence:
    """A prompt, its settings, its own random numbers, and the answer so far.

    Args:
        number: its name in the engine; a greater one came later.
        prompt_ids: at least one id. Of more than `context` the last `context - 1` are used.
        params: the settings.
        context: ids that the model sees at once, 2 or more.
        eos_ids: the model's end-of-text ids.
        decoder: turns this sequence's ids into text.
        seed: decides its random numbers; the one for an id depends on the seed and on how many
            ids came before it in the answer, and on nothing else.

    Attributes:
        prompt_ids: all of the prompt.
        window: the newest ids, all that the model sees; the last one may still have to be
            computed.
        counts: how often each id has been generated.
        state: the scheduler's.
        finish_reason: None while the answer continues.
    """

    def __init__(
        self,
        number: int,
        prompt_ids: Iterable[int],
        params: SamplingParams,
        *,
        context: int,
        eos_ids: Collection[int],
        decoder: StreamDecoder,
        seed: int,
    ) -> None:
        ids = list(prompt_ids)
        assert context >= 2 and ids
        self.number = number
        self.params = params
        self.prompt_ids = ids
        self.window = ids if len(ids) <= context else ids[-(context - 1) :]
        self.counts: Counter[int] = Counter()
        self.state: State = "waiting"
        self.finish_reason: FinishReason | None = None
        self._context = context
        self._key = key_of("draw", seed)
        self._generated = 0
        self._end_ids = set(params.stop_token_ids) | (set() if params.ignore_eos else set(eos_ids))
        self._decoder = decoder
        self._stop = StopMatcher(params.stop_strings)
        self._unsent: list[int] = []

    @property
    def full(self) -> bool:
        """Whether the window has outgrown the context."""
        return len(self.window) > self._context

    def shorten(self) -> None:
        """Keep the newest half of the window, to be computed again with positions from 0.

        So the model never sees a position that it was not trained for, and always between a
        half and a whole context of text.
        """
        self.window = self.window[-max(1, self._context // 2) :]

    def row(self) -> Row:
        """What a sampler has to know to choose the next id."""
        return Row(
            params=self.params,
            counts=self.counts,
            prompt_ids=self.prompt_ids,
            uniform=uniform_at(self._key, self._generated),
        )

    def push(self, token_id: int) -> Piece | None:
        """Take a generated id; return what is certain now, if there is text or it ends here.

        An id that ends the sequence sets `finish_reason`.
        """
        self.window.append(token_id)
        self.counts[token_id] += 1
        self._unsent.append(token_id)
        self._generated += 1
        text = self._text(token_id)
        if not text and self.finish_reason is None:
            return None
        token_ids, self._unsent = self._unsent, []
        return Piece(text=text, token_ids=token_ids, finish_reason=self.finish_reason)

    def _text(self, token_id: int) -> str:
        """The text that is certain now; may set `finish_reason`."""
        ends = token_id in self._end_ids
        text = self._stop.push("" if ends else self._decoder.push(token_id))
        if self._stop.matched:
            self.finish_reason = "stop"
        elif ends or self._generated >= self.params.max_tokens:
            text += self._stop.push(self._decoder.finish()) + self._stop.finish()
            self.finish_reason = "stop" if ends or self._stop.matched else "length"
        return text
