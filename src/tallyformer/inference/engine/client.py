"""Several callers, in any threads, share one engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import NamedTuple

from tallyformer.inference.engine.engine import Engine, Got
from tallyformer.inference.outputs import Output, Piece, by_sample, joined
from tallyformer.inference.sampling_params import SamplingParams


class EngineRequest(NamedTuple):
    """A prompt's ids, its settings, whose it is, and how it is answered; see `Engine.add`."""

    prompt_ids: list[int]
    params: SamplingParams
    prefix_key: Hashable = None
    at_end: bool = False


Receive = Callable[[Got], None]
"""What a caller does with what is new; called in the thread that steps, so it must be quick."""
_PAUSE_SECONDS = 0.0001


class EngineClient:
    """Gives each caller the pieces of its own sequences.

    Whoever wants the next piece, while nobody takes a step, takes all sequences a step on and
    hands the others their pieces. So callers that ask at the same time are answered together,
    and none waits longer than the step in which its piece is made.

    Args:
        engine: nobody else steps it.

    Attributes:
        after_step: called when all that is new in a step has been received. Where one returns
            True, the next step may begin up to 0.1 ms later: on a CPU the engine computes on all
            cores, and whoever has to pass something on at once would wait for a time slice.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Condition()
        self._stepping = False
        self._receivers: dict[int, Receive] = {}
        self.after_step: set[Callable[[], bool]] = set()

    @property
    def slots(self) -> int:
        """Sequences that have a place at most."""
        return self._engine.slots

    @property
    def running(self) -> int:
        """Sequences that have a place."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place."""
        return max(0, len(self._receivers) - self._engine.running)

    def stream(self, asked: EngineRequest) -> Iterator[Piece]:
        """Yield the pieces of one answer; it begins with the first and may be broken off."""
        box: deque[Got] = deque()
        numbers = self.join(asked, box.append)
        try:
            yield from self._until_finished(box, len(numbers))
        finally:
            self.leave(numbers)

    def answer(
        self, asked: list[EngineRequest], on_finished: Callable[[], object] = lambda: None
    ) -> list[Output]:
        """Answer several prompts, in their order, each with all its samples, `at_end`.

        Args:
            asked: the prompts.
            on_finished: called whenever a sample is finished, in the thread that steps.
        """
        boxes: list[deque[Got]] = [deque() for _ in asked]
        numbers: list[int] = []
        try:
            for one, box in zip(asked, boxes, strict=True):
                numbers += self.join(one._replace(at_end=True), _into(box, on_finished))
            return [
                joined(one.prompt_ids, pieces)
                for one, box in zip(asked, boxes, strict=True)
                for pieces in by_sample(self._until_finished(box, one.params.n))
            ]
        finally:
            self.leave(numbers)

    def join(self, asked: EngineRequest, receive: Receive) -> list[int]:
        """Let a prompt wait for its turn, and have what is new sent to `receive`.

        A sample's last is a piece with a `finish_reason`, or an error.

        Returns:
            The numbers of its samples.

        Raises:
            Exception: as for `Engine.add`.
        """
        # Within the lock, as nothing is handed out then: what is new has its receiver.
        with self._turn:
            ids, params, prefix_key, at_end = asked
            numbers = self._engine.add(ids, params, prefix_key=prefix_key, at_end=at_end)
            self._receivers |= dict.fromkeys(numbers, receive)
            self._turn.notify_all()
        return numbers

    def leave(self, numbers: Collection[int]) -> None:
        """Want nothing more of these sequences; those that have not finished are aborted.

        It takes no lock: a generator that nobody holds is closed wherever Python collects it,
        even within a step of this very thread.
        """
        for number in numbers:
            if self._receivers.pop(number, None) is not None:
                self._engine.abort(number)

    def advance(self, done: Callable[[], bool]) -> None:
        """Take all sequences on, or let another caller do it, until `done`.

        Raises:
            Exception: what `Engine.step` raises, in a step that this caller takes.
        """
        with self._turn:
            while not done():
                if self._stepping:
                    self._turn.wait()
                else:
                    self._step()

    def tidy(self) -> None:
        """Let those that have left give up their places, with nobody there to take a step."""
        with self._turn:
            if not self._stepping:
                self._step()

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait, without a step, until `until` holds; it is asked after every `wake` and `join`."""
        with self._turn:
            self._turn.wait_for(until)

    def wake(self) -> None:
        """Let those who wait ask again whether they still have to."""
        with self._turn:
            self._turn.notify_all()

    def _until_finished(self, box: deque[Got], samples: int) -> Iterator[Piece]:
        while samples:
            self.advance(lambda: bool(box))
            got = box.popleft()
            if isinstance(got, Exception):
                raise got
            yield got
            samples -= got.finish_reason is not None

    def _step(self) -> None:
        """One step, during which the lock is free for those who join or have their pieces."""
        self._stepping = True
        self._turn.release()
        try:
            new = self._engine.step()
        finally:
            self._turn.acquire()
            self._stepping = False
            self._turn.notify_all()
        for number, got in new.items():
            ends = isinstance(got, Exception) or got.finish_reason
            receive = (self._receivers.pop if ends else self._receivers.get)(number, None)
            if receive is not None:
                receive(got)
        answers = [call() for call in tuple(self.after_step)]
        if any(answers):
            self._turn.wait(_PAUSE_SECONDS)


def _into(box: deque[Got], on_finished: Callable[[], object]) -> Receive:
    def receive(got: Got) -> None:
        try:
            if isinstance(got, Piece) and got.finish_reason:
                on_finished()
        except Exception as error:  # its own caller's, not that of whoever takes the step
            got = error
        box.append(got)

    return receive
