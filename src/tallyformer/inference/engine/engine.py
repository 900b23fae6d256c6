"""`Engine`: schedule, compute, choose, and pass the text on, one step after the other."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Collection, Hashable, Iterable

from tallyformer.errors import TallyFormerError
from tallyformer.inference.engine.runner import Runner, Work
from tallyformer.inference.engine.scheduler import Fork, Scheduler
from tallyformer.inference.engine.sequence import Sequence
from tallyformer.inference.outputs import Piece
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.tokenizer import Tokenizer

PREFILL_TOKENS = 16384
"""Ids that one step prefills at most, by default, where windows are computed whole."""

_LEAST_IDLE = 4
"""Sequences that stay after their end, at least: an eighth of the slots where that is more."""

Got = Piece | Exception
"""A sequence's new piece, or what went wrong with it alone; it has been forgotten then."""


class Engine:
    """Answers any number of prompts at once; new ones join between any two steps.

    What a sequence gets does not depend on those that it runs with. `add` and `abort` may be called
    from any thread at any time, and count from the next step on; one thread at a time calls
    `step`, see `EngineClient`.

    Args:
        runner: computes the model; as many sequences run at once as it has slots, others wait.
        tokenizer: the model's.
        context: ids that the model sees at once, 2 or more.
        eos_ids: the model's end-of-text ids.
        prefill_tokens: most ids that one step prefills; None takes the runner's `prefill_chunk`,
            or 16,384. At least a context where the runner computes windows whole.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        context: int,
        eos_ids: Collection[int],
        prefill_tokens: int | None = None,
    ) -> None:
        self._runner = runner
        self._tokenizer = tokenizer
        self._context = context
        self._eos_ids = frozenset(eos_ids)
        self._numbers = itertools.count()
        self._sequences: dict[int, Sequence] = {}
        # Those that the runner keeps something of.
        self._kept: set[int] = set()
        # What was asked since the last step, in order: one to add, or the number of one to abort.
        self._asked: deque[Sequence | int] = deque()
        self._failed: dict[int, Got] = {}
        chunk = runner.prefill_chunk
        tokens = prefill_tokens or chunk or PREFILL_TOKENS
        self._scheduler = Scheduler(
            places=runner.slots,
            prefill_tokens=tokens if chunk else max(tokens, context),
            prefill_chunk=chunk,
            most_idle=max(_LEAST_IDLE, runner.slots // 8),
        )

    def add(
        self,
        prompt_ids: Iterable[int],
        params: SamplingParams,
        *,
        prefix_key: Hashable = None,
        at_end: bool = False,
    ) -> list[int]:
        """Let a prompt wait for its turn.

        Args:
            prompt_ids: at least one id of the vocabulary.
            params: its settings; without a seed it gets a fresh one.
            prefix_key: the caller. Where prompts with the same key begin alike, that part is
                computed once, and kept for a while after their end. None shares nothing.
            at_end: each sample is one piece, at its end, which takes less work.

        Returns:
            The numbers of the sequences, one for each of `params.n` samples.

        Raises:
            InvalidRequestError: all ids are banned.
            Exception: what making a hook of `params` raises.
        """
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        stays = prefix_key is not None
        if prefix_key is None and params.n > 1:
            prefix_key = object()
        ids = list(prompt_ids)
        samples: list[Sequence] = []
        for sample in range(params.n):
            sequence = Sequence(
                next(self._numbers),
                ids,
                params,
                context=self._context,
                vocab_size=self._tokenizer.vocab_size,
                eos_ids=self._eos_ids,
                decoder=self._tokenizer.stream_decoder(),
                seed=seed,
                sample=sample,
                leader=samples[0] if samples else None,
                prefix_key=prefix_key,
                stays=stays,
                at_end=at_end,
            )
            samples.append(sequence)
        self._asked.extend(samples)
        return [sequence.number for sequence in samples]

    def abort(self, number: int) -> None:
        """Forget a sequence and free its place; nothing happens if it has finished."""
        self._asked.append(number)

    @property
    def slots(self) -> int:
        """Sequences that run at once; the others wait."""
        return self._runner.slots

    @property
    def running(self) -> int:
        """Sequences that have a place."""
        return len(self._scheduler.running)

    def step(self) -> dict[int, Got]:
        """Take every sequence that runs, and those that can join, on.

        Returns:
            What is new, by the sequences' numbers. A sequence whose piece has a `finish_reason`
            is forgotten; one whose text is not certain yet has none.

            One whose logits are not finite, or whose hook fails, has the error in place of a
            piece, and is forgotten as well.

        Raises:
            Exception: a lack of memory, say. It leaves the sequences as they were, to be aborted
                or tried again.
        """
        try:
            self._follow()
            schedule = self._scheduler.schedule()
            self._move(schedule.moves)
            pieces = self._advanced(schedule.parts)
            self._release([sequence.number for sequence in self._scheduler.settle()])
        except BaseException:
            self._kept.clear()
            self._runner.clear()
            self._scheduler.preempt()
            raise
        for number, piece in pieces.items():
            if piece.finish_reason:
                del self._sequences[number]
        failed, self._failed = self._failed, {}
        return {**pieces, **failed}

    def _follow(self) -> None:
        """Do what was asked for since the last step."""
        while self._asked:
            asked = self._asked.popleft()
            if isinstance(asked, Sequence):
                self._scheduler.add(asked)
                self._sequences[asked.number] = asked
            elif asked in self._sequences:
                self._forget(asked)

    def _forget(self, number: int) -> None:
        self._scheduler.abort(self._sequences.pop(number))
        self._release([number])

    def _release(self, numbers: Collection[int]) -> None:
        held = self._kept.intersection(numbers)
        if held:
            self._kept -= held
            self._runner.release(held)

    def _move(self, moves: list[Fork | int]) -> None:
        for move in moves:
            if isinstance(move, Fork):
                self._runner.fork(move.number, move.new, move.length)
                self._kept.add(move.new)
            else:
                self._release([move])

    def _advanced(self, parts: list[tuple[Sequence, int]]) -> dict[int, Piece]:
        """Compute, choose, and give each sequence what is its own."""
        works = self._works(parts)
        if not works:
            return {}
        logits = self._runner.compute([work for _, work in works])
        self._kept.update([work.number for _, work in works])
        # Only now, as a device may be computing meanwhile.
        rows = [row for sequence, work in works for row in sequence.rows(work)]
        choices = self._runner.choose(logits, rows) if rows else []
        pieces = {}
        first = 0
        for sequence, work in works:
            chosen = choices[first : first + work.logits]
            first += work.logits
            if sequence.failure is not None:
                self._fail(sequence, sequence.failure)
                continue
            try:
                piece = sequence.take(work, chosen)
            except TallyFormerError as error:
                self._fail(sequence, error)
                continue
            if piece is not None:
                pieces[sequence.number] = piece
        return pieces

    def _works(self, parts: list[tuple[Sequence, int]]) -> list[tuple[Sequence, Work]]:
        """The step in the runner's words; a sequence whose hook fails is left out."""
        works = []
        for sequence, count in parts:
            try:
                works.append((sequence, sequence.work(count)))
            except Exception as error:
                self._fail(sequence, error)
        return works

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """This one alone ends, with an error."""
        self._failed[sequence.number] = error
        self._forget(sequence.number)
