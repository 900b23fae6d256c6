"""Several callers, in one thread or more, share one engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from tallyformer.inference.engine.engine import Engine
from tallyformer.inference.outputs import Output, Piece, joined
from tallyformer.inference.sampling_params import SamplingParams

Asked = tuple[list[int], SamplingParams]
"""A prompt's ids, and its settings."""


class EngineClient:
    """Gives each caller the pieces of its own sequences.

    Whoever wants the next piece takes all sequences a step on and keeps the others' pieces for
    them. So callers that ask at the same time are answered together.

    Args:
        engine: nobody else steps it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._pieces: dict[int, deque[Piece]] = {}
        self._leaving: deque[int] = deque()

    def stream(self, prompt_ids: list[int], params: SamplingParams) -> Iterator[Piece]:
        """Yield the pieces of one answer; it begins with the first and may be broken off."""
        number = self._join([(prompt_ids, params)])[0]
        try:
            yield from self._until_finished(number)
        finally:
            self._leave(number)

    def answer(self, asked: list[Asked]) -> list[Output]:
        """Answer several prompts, in their order."""
        numbers = self._join(asked)
        try:
            return [
                joined(prompt_ids, self._until_finished(number))
                for (prompt_ids, _), number in zip(asked, numbers, strict=True)
            ]
        finally:
            for number in numbers:
                self._leave(number)

    def _join(self, asked: list[Asked]) -> list[int]:
        with self._lock:
            numbers = [self._engine.add(prompt_ids, params) for prompt_ids, params in asked]
            self._pieces |= {number: deque() for number in numbers}
            return numbers

    def _until_finished(self, number: int) -> Iterator[Piece]:
        while True:
            piece = self._next(number)
            yield piece
            if piece.finish_reason:
                return

    def _next(self, number: int) -> Piece:
        mine = self._pieces[number]
        while not mine:
            with self._lock:
                self._let_go()
                if not mine:
                    self._step()
        return mine.popleft()

    def _step(self) -> None:
        for number, piece in self._engine.step().items():
            self._pieces[number].append(piece)

    def _leave(self, number: int) -> None:
        """Abort what has not finished.

        A generator that nobody holds is closed wherever Python collects it, even within a step of
        this very thread. The next caller finishes then what cannot be done at once.
        """
        self._leaving.append(number)
        if self._lock.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        while self._leaving:
            number = self._leaving.popleft()
            self._engine.abort(number)
            del self._pieces[number]
