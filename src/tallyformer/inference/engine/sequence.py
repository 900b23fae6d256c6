"""One sample of a prompt that is being answered: its ids, settings and state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from collections.abc import Sequence as Several
from typing import TYPE_CHECKING, Literal

import numpy as np

from tallyformer.errors import TallyFormerError
from tallyformer.inference.engine.hook_results import (
    allowed_words,
    nothing_may_follow,
    processed_logits,
)
from tallyformer.inference.engine.look_up import look_up
from tallyformer.inference.engine.runner import Choice, Chosen, LogitsRow, Work
from tallyformer.inference.engine.text import AnswerText
from tallyformer.inference.outputs import FinishReason, Piece, TokenLogprob
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.keyed_random import key_of, uniforms_at
from tallyformer.token_ids import checked_ids

if TYPE_CHECKING:
    from tallyformer.tokenizer.stream import StreamDecoder

_UNIFORMS = 32
"""Random numbers that are made at first; then twice as many."""
State = Literal["waiting", "running", "finished"]
"""`waiting`: it has no place. `running`: it has one, where its first `kept` ids are kept."""


class Sequence:
    """A prompt, its settings, its own random numbers, and the answer so far.

    The scheduler says how many ids of the window are computed in a step; `work` and `rows` put
    that into the runner's words, `take` takes what the runner chose.

    Args:
        number: its name in the engine; a greater one came later.
        prompt_ids: at least one id. Of more than `context` the last `context - 1` are used.
        params: the settings.
        context: ids that the model sees at once, 2 or more.
        vocab_size: ids that have a text.
        eos_ids: the model's end-of-text ids.
        decoder: turns this sequence's ids into text.
        seed: decides its random numbers; the one for an id depends on the seed, on `sample` and
            on how many ids came before it in the answer, and on nothing else.
        sample: which of `params.n`.
        leader: the sequence of the first sample, whose prefill the others share.
        prefix_key: sequences with the same one may share what they begin with alike.
        stays: whether its keys and values are of use after its end.
        at_end: whether all that is new is given in one piece at the end.
        clock: seconds that never go back.

    Attributes:
        window: the newest ids, all that the model sees.
        kept: how many of them are computed and kept.
        generated: ids of the answer.
        state: the scheduler's.
        failure: None, or what went wrong in a hook; the answer ends with it.

    Raises:
        InvalidRequestError: all ids are banned.
        Exception: what a function of `params` that makes a hook raises.
    """

    def __init__(
        self,
        number: int,
        prompt_ids: Iterable[int],
        params: SamplingParams,
        *,
        context: int,
        vocab_size: int,
        eos_ids: Collection[int],
        decoder: StreamDecoder,
        seed: int,
        sample: int = 0,
        leader: Sequence | None = None,
        prefix_key: Hashable = None,
        stays: bool = False,
        at_end: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        ids = list(prompt_ids)
        assert context >= 2 and ids
        self.number = number
        self.params = params
        self.prompt_ids = ids
        self.sample = sample
        self.leader = leader
        self.prefix_key = prefix_key
        self.stays = stays
        self.window = ids if len(ids) <= context else ids[-(context - 1) :]
        self.kept = 0
        self.generated: list[int] = []
        # How often each id was generated; empty where no setting asks.
        self.counts: Counter[int] = Counter()
        self._counts_ids = params.has_penalties
        self.state: State = "waiting"
        self.failure: Exception | None = None
        self._clock, self._asked_at = clock, clock()
        self._queue_seconds: float | None = None
        self._has_begun = False
        self._context, self._vocab_size = context, vocab_size
        self._key = key_of("draw", seed, sample) if sample else key_of("draw", seed)
        end_ids = {*params.stop_token_ids, *(() if params.ignore_eos else eos_ids)}
        # A folder may name an end-of-text that is no id of the vocabulary: -1, say.
        self._bad = frozenset(i for i in params.bad_token_ids if i < vocab_size)
        self._bad_first = self._bad.union(i for i in end_ids if 0 <= i < vocab_size)
        if len(self._bad_first if params.min_tokens else self._bad) >= vocab_size:
            raise nothing_may_follow("bad_token_ids")
        self._mask = None if params.token_mask is None else params.token_mask()
        self._force = None if params.forced_ids is None else params.forced_ids()
        self._at_end = at_end
        self._text = AnswerText(
            decoder,
            params.stop_strings,
            end_ids,
            params.max_tokens,
            at_end=at_end and self._force is None,
        )
        # What is certain and was not given yet.
        self._ready = ""
        self._processor = None if params.logits_processor is None else params.logits_processor()
        self._forced: list[int] = []
        self._ahead: list[int] = []
        # Whether nothing is ever looked ahead or scored, so that each step is of one id.
        self._goes_by_one = (
            self._force is None and not params.look_up and params.prompt_logprobs is None
        )
        # Where a scored prompt's ids are; emptied when they are sent.
        self._unscored = sample == 0 and params.prompt_logprobs is not None
        self._scores: list[TokenLogprob | None] = [None] * (len(ids) if self._unscored else 0)
        # How many ids of the answer have been given, and the log-probabilities of those after them.
        self._sent = 0
        self._logprobs: list[TokenLogprob] = []
        self._guessed = self._accepted = 0
        self._greedy = params.greedy
        self._uniforms: list[float] = []
        # The row of a step of one id, where it differs by its random number and bans alone.
        self._row: LogitsRow | None = None
        if self._goes_by_one and self._mask is None:
            self._row = self._next_row(0)

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while the answer continues."""
        return self._text.finish_reason

    @property
    def full(self) -> bool:
        """Whether the window has outgrown the context."""
        return len(self.window) > self._context

    @property
    def leaves(self) -> bool:
        """Whether it has no use for its place now: it is finished or `full`."""
        return self._text.finish_reason is not None or len(self.window) > self._context

    @property
    def missing(self) -> int:
        """Ids of the window that are not computed: 1 in the middle of an answer."""
        return len(self.window) - self.kept

    @property
    def unscored(self) -> bool:
        """Whether every id of the window needs a row of logits, as the prompt is scored."""
        return self._unscored

    def run(self) -> None:
        """It has got a place."""
        self.state = "running"
        if not self._has_begun:
            self._has_begun = True
            self._queue_seconds = self._clock() - self._asked_at

    def shorten(self) -> None:
        """Keep the newest half of the window, to be computed again with positions from 0.

        So the model never sees a position that it was not trained for, and always between a
        half and a whole context of text.
        """
        self.window = self.window[-max(1, self._context // 2) :]

    def work(self, count: int) -> Work:
        """Compute the next `count` ids of the window; at its end, also those that may follow.

        Raises:
            Exception: what a hook raises.
        """
        end = self.kept + count
        if self._goes_by_one and count == 1 and end == len(self.window):
            return Work(self.number, self.kept, self.window[-1:])
        ids = self.window[self.kept : end]
        if end < len(self.window):
            self._ahead = []
            return Work(self.number, self.kept, ids, count if self._unscored else 0)
        self._ahead = self._looked_ahead()
        logits = (count if self._unscored else 1) + len(self._ahead)
        return Work(self.number, self.kept, [*ids, *self._ahead], logits)

    def rows(self, work: Work) -> list[LogitsRow]:
        """What the sampler has to know for each row of logits of `work`.

        Where a hook fails, `failure` says so, and no row asks for anything.
        """
        if self._row is not None:
            if not work.logits:
                return []
            index = len(self.generated)
            self._row.uniform = self._uniform(index)
            self._row.banned = self._bad_first if index < self.params.min_tokens else self._bad
            return [self._row]
        first = _first_place(work)
        inside = range(first, min(first + work.logits, len(self.window)))
        rows = [self._scored_row(self.window[place]) for place in inside]
        try:
            return rows + [self._next_row(i) for i in range(work.logits - len(rows))]
        except Exception as error:
            self.failure = error
            return [self._scored_row(0)] * work.logits

    def take(self, work: Work, choices: Several[Chosen]) -> Piece | None:
        """Take what was chosen; return what is certain now, if there is text or it ends here.

        With `at_end` only the latter counts.

        Raises:
            TallyFormerError: of a row for which nothing could be chosen.
        """
        if self._goes_by_one and choices:
            self._ready += self._took(_chosen(choices[0]))
            return self._piece_if_due()
        self.kept = min(work.start + len(work.ids), len(self.window))
        first = _first_place(work)
        scored = choices[: max(0, len(self.window) - first)]
        self._keep_scores(first, scored)
        drawn = choices[len(scored) :]
        if not drawn:
            return None
        self._unscored = False
        if self.params.max_tokens == 0:
            self._text.finish_reason = "length"
        else:
            self._ready += "".join(self._taken(drawn))
        return self._piece_if_due()

    def _looked_ahead(self) -> list[int]:
        """Ids that follow the window: forced, or guessed."""
        room = min(
            self._context - len(self.window), self.params.max_tokens - len(self.generated) - 1
        )
        if self._force is not None:
            if not self._forced:
                self._forced = checked_ids(self._force(self._text.whole), self._vocab_size)
            return self._forced[: max(0, room)]
        if self._mask is not None or self._processor is not None:
            return []
        return look_up(self.window, min(room, self.params.look_up))

    def _scored_row(self, token_id: int) -> LogitsRow:
        return LogitsRow(
            params=self.params,
            counts={},
            prompt_ids=(),
            uniform=0.0,
            given=token_id,
            logprobs=self.params.prompt_logprobs,
        )

    def _next_row(self, ahead: int) -> LogitsRow:
        """The row that comes after `ahead` ids beyond the window."""
        known = self._ahead[:ahead] if ahead else ()
        index = len(self.generated) + ahead
        banned = self._bad_first if index < self.params.min_tokens else self._bad
        given = self._forced[ahead] if ahead < len(self._forced) else None
        allowed = None
        if self._mask is not None and given is None:
            allowed = self._mask([*self.generated, *known])
        if allowed is not None:
            allowed, banned = allowed_words(allowed, banned, self._vocab_size), frozenset()
        return LogitsRow(
            params=self.params,
            counts=self.counts + Counter(known) if known else self.counts,
            prompt_ids=self.prompt_ids,
            uniform=self._uniform(index),
            given=given,
            banned=banned,
            process=None if self._processor is None else self._processed,
            allowed=allowed,
            logprobs=self.params.logprobs,
        )

    def _uniform(self, index: int) -> float:
        """The random number for an id of the answer; a greedy answer needs none."""
        if self._greedy:
            return 0.0
        known = self._uniforms
        while index >= len(known):
            known += uniforms_at(self._key, len(known), _UNIFORMS + len(known))
        return known[index]

    def _processed(self, logits_V: np.ndarray) -> np.ndarray:
        """What the hook makes of the logits that follow the window; as they are if it fails."""
        assert self._processor is not None
        if not np.isfinite(logits_V.max()):
            return logits_V  # which is an error that says more than the hook could
        try:
            given = self._processor(logits_V.astype(np.float32), self.generated.copy())
            return processed_logits(given, self._vocab_size)
        except Exception as error:
            self.failure = error
            return logits_V

    def _keep_scores(self, first: int, scored: Several[Chosen]) -> None:
        before = len(self.prompt_ids) - len(self.window)
        for place, choice in enumerate(scored, first):
            self._scores[before + place] = _logprob(_chosen(choice))

    def _taken(self, drawn: Several[Chosen]) -> Iterable[str]:
        """Take ids, as long as the next was chosen after what really came before; their text."""
        ahead, self._ahead = self._ahead, []
        if self._force is None:
            self._guessed += len(ahead)
        for i, choice in enumerate(map(_chosen, drawn)):
            yield self._took(choice)
            self._forced = self._forced[1:]
            right = i < len(ahead) and choice.id == ahead[i]
            self._accepted += right and self._force is None
            if not right or self.finish_reason or self.full:
                return

    def _took(self, choice: Choice) -> str:
        """Take one id; its text that is certain now."""
        token_id = choice.id
        self.window.append(token_id)
        self.generated.append(token_id)
        if self._counts_ids:
            self.counts[token_id] = self.counts.get(token_id, 0) + 1
        if self.params.logprobs is not None:
            self._logprobs.append(_logprob(choice))
        self.kept = len(self.window) - 1
        return self._text.push(token_id)

    def _piece_if_due(self) -> Piece | None:
        ends = self._text.finish_reason
        if not ends and (self._at_end or not self._ready):
            return None
        text, self._ready = self._ready, ""
        token_ids = self.generated[self._sent :]
        self._sent += len(token_ids)
        logprobs, self._logprobs = self._logprobs, []
        scores, self._scores = self._scores, []
        queue_seconds, self._queue_seconds = self._queue_seconds, None
        guessed, accepted = self._guessed, self._accepted
        self._guessed = self._accepted = 0
        return Piece(
            text=text,
            token_ids=token_ids,
            finish_reason=ends,
            index=self.sample,
            logprobs=logprobs,
            prompt_logprobs=scores,
            guessed=guessed,
            accepted=accepted,
            queue_seconds=queue_seconds,
        )


def _first_place(work: Work) -> int:
    """The place that the first row of logits is about."""
    return work.start + len(work.ids) - work.logits + 1


def _chosen(what: Chosen) -> Choice:
    if isinstance(what, TallyFormerError):
        raise what
    return what


def _logprob(choice: Choice) -> TokenLogprob:
    assert choice.logprob is not None
    return TokenLogprob(choice.id, choice.logprob, choice.alternatives)
