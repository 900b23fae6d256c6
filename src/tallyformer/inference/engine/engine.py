"""`Engine`: schedule, compute, sample, and pass the text on, one step after the other."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Collection, Iterable

from tallyformer.inference.engine.runner import Runner, Work
from tallyformer.inference.engine.scheduler import Schedule, Scheduler
from tallyformer.inference.engine.sequence import Sequence
from tallyformer.inference.outputs import Piece
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.tokenizer import Tokenizer

PREFILL_TOKENS = 16384
"""Ids that one step prefills at most, by default: 64 windows of 256."""


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
        prefill_tokens: most ids that one step prefills, padding included; at least a context.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        context: int,
        eos_ids: Collection[int],
        prefill_tokens: int = PREFILL_TOKENS,
    ) -> None:
        self._runner = runner
        self._tokenizer = tokenizer
        self._context = context
        self._eos_ids = eos_ids
        self._numbers = itertools.count()
        self._sequences: dict[int, Sequence] = {}
        # What was asked since the last step, in order: one to add, or the number of one to abort.
        self._asked: deque[Sequence | int] = deque()
        self._scheduler = Scheduler(
            max_running=runner.slots, prefill_tokens=max(prefill_tokens, context)
        )

    def add(self, prompt_ids: Iterable[int], params: SamplingParams) -> int:
        """Let a prompt wait for its turn.

        Args:
            prompt_ids: at least one id of the vocabulary.
            params: its settings; without a seed it gets a fresh one.

        Returns:
            The sequence's number.
        """
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        sequence = Sequence(
            next(self._numbers),
            prompt_ids,
            params,
            context=self._context,
            eos_ids=self._eos_ids,
            decoder=self._tokenizer.stream_decoder(),
            seed=seed,
        )
        self._asked.append(sequence)
        return sequence.number

    def abort(self, number: int) -> None:
        """Forget a sequence and free its place; nothing happens if it has finished."""
        self._asked.append(number)

    @property
    def slots(self) -> int:
        """Sequences that run at once; the others wait."""
        return self._runner.slots

    @property
    def running(self) -> int:
        """Sequences whose keys and values are kept."""
        return len(self._scheduler.running)

    def step(self) -> dict[int, Piece]:
        """Take every sequence that runs, and those that can join, one id on.

        Returns:
            The new pieces by the sequences' numbers. A sequence whose piece has a
            `finish_reason` is forgotten; one whose text is not certain yet has none.

        Raises:
            CheckpointError: logits are not finite. This and any other error, such as a lack of
                memory, leaves the sequences as they were, to be aborted or tried again.
        """
        try:
            self._follow()
            chosen = self._chosen(self._scheduler.schedule())
            pieces = {number: self._sequences[number].push(new_id) for number, new_id in chosen}
            left = self._scheduler.settle()
            if left:
                self._runner.release([sequence.number for sequence in left])
        except BaseException:
            self._runner.clear()
            self._scheduler.preempt()
            raise
        for sequence in left:
            if sequence.finish_reason:
                del self._sequences[sequence.number]
        return {number: piece for number, piece in pieces.items() if piece is not None}

    def _follow(self) -> None:
        """Do what was asked for since the last step."""
        while self._asked:
            asked = self._asked.popleft()
            if isinstance(asked, Sequence):
                self._scheduler.add(asked)
                self._sequences[asked.number] = asked
                continue
            sequence = self._sequences.pop(asked, None)
            if sequence is not None and self._scheduler.abort(sequence):
                self._runner.release([asked])

    def _chosen(self, schedule: Schedule) -> list[tuple[int, int]]:
        """Numbers of the scheduled sequences, and the id that follows each."""
        sequences = [*schedule.decode, *schedule.prefill]
        if not sequences:
            return []
        work = [Work(s.number, len(s.window) - 1, s.window[-1:]) for s in schedule.decode]
        work += [Work(s.number, 0, list(s.window)) for s in schedule.prefill]
        logits = self._runner.compute(work)
        choices = self._runner.choose(logits, [sequence.row() for sequence in sequences])
        return [(s.number, choice.id) for s, choice in zip(sequences, choices, strict=True)]
