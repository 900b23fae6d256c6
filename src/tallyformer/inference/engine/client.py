"""Several callers, in any threads, share one engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.outputs import Output, Piece, joined
from tallyformer.inference.sampling_params import SamplingParams

Asked = tuple[list[int], SamplingParams]
"""A prompt's ids, and its settings."""
Receive = Callable[[Piece], None]
"""What a caller does with a piece; called in the thread that steps, so it must be quick."""


class EngineClient:
    """Gives each caller the pieces of its own sequences.

    Whoever wants the next piece, while nobody takes a step, takes all sequences a step on and
    hands the others their pieces. So callers that ask at the same time are answered together,
    and none waits longer than the step in which its piece is made.

    Args:
        engine: nobody else steps it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Condition()
        self._stepping = False
        self._receivers: dict[int, Receive] = {}

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

    def stream(self, prompt_ids: list[int], params: SamplingParams) -> Iterator[Piece]:
        """Yield the pieces of one answer; it begins with the first and may be broken off."""
        pieces: deque[Piece] = deque()
        number = self.join(prompt_ids, params, pieces.append)
        try:
            yield from self._until_finished(pieces)
        finally:
            self.leave(number)

    def answer(self, asked: list[Asked]) -> list[Output]:
        """Answer several prompts, in their order."""
        boxes: list[deque[Piece]] = [deque() for _ in asked]
        numbers = []
        try:
            for (prompt_ids, params), box in zip(asked, boxes, strict=True):
                numbers.append(self.join(prompt_ids, params, box.append))
            return [
                joined(prompt_ids, self._until_finished(box))
                for (prompt_ids, _), box in zip(asked, boxes, strict=True)
            ]
        finally:
            for number in numbers:
                self.leave(number)

    def join(self, prompt_ids: list[int], params: SamplingParams, receive: Receive) -> int:
        """Let a prompt wait for its turn, and have its pieces sent to `receive`; its number.

        The one with a `finish_reason` is the last.
        """
        number = self._engine.add(prompt_ids, params)
        self._receivers[number] = receive
        with self._turn:
            self._turn.notify_all()
        return number

    def leave(self, number: int) -> None:
        """Want no more pieces of a sequence; it is aborted if it has not finished.

        It takes no lock: a generator that nobody holds is closed wherever Python collects it,
        even within a step of this very thread.
        """
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

    def _until_finished(self, pieces: deque[Piece]) -> Iterator[Piece]:
        while True:
            self.advance(lambda: bool(pieces))
            piece = pieces.popleft()
            yield piece
            if piece.finish_reason:
                return

    def _step(self) -> None:
        """One step, during which the lock is free for those who join or have their pieces."""
        self._stepping = True
        self._turn.release()
        try:
            pieces = self._engine.step()
        finally:
            self._turn.acquire()
            self._stepping = False
            self._turn.notify_all()
        for number, piece in pieces.items():
            take = self._receivers.pop if piece.finish_reason else self._receivers.get
            receive = take(number, None)
            if receive is not None:
                receive(piece)
