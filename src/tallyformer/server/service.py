"""What every route that generates shares: admit, generate, answer whole or as a stream."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from tallyformer.inference.outputs import Output, Piece, joined
from tallyformer.server import sse
from tallyformer.server.answers import AnswerShape, AnswerUsage
from tallyformer.server.api_error import ApiError
from tallyformer.server.drain import Drain
from tallyformer.server.feedback.exchanges import Exchange, Exchanges
from tallyformer.server.generation import Generation, WantedAnswers
from tallyformer.server.memory import AnswerMemory
from tallyformer.server.metrics import AnswerTimes, Metrics
from tallyformer.server.models import Models, ServedModel
from tallyformer.server.rate_limits import RateLimits
from tallyformer.server.rejoining import Recording, Recordings
from tallyformer.server.settings import ServerSettings
from tallyformer.server.shared_answers import SharedAnswers, SharedStream
from tallyformer.server.streaming import ClientGone, EventStream, has_gone, while_read
from tallyformer.tokenizer.messages import Message

IGNORED = "x-ignored-fields"
LEFT_OUT = "x-context-left-out"
GENERATION = "x-generation-id"
_MOST_NAMES = 32
_LONGEST_NAME = 64
_READING_SECONDS = 60.0
"""Seconds that a slow reader gets after the deadline."""


def named(ignored: Sequence[str]) -> dict[str, str]:
    """The header that names fields which have no effect; none where there are none."""
    names = [quote(name[:_LONGEST_NAME], safe=".[]") for name in ignored[:_MOST_NAMES]]
    return {IGNORED: ", ".join(names)} if names else {}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that has been understood.

    Attributes:
        model: who answers.
        wanted: the answers, prompt by prompt.
        shape: how they are written.
        stream: as a stream.
        prompt_tokens: of all prompts.
        ignored: fields of the request that have no effect.
        left_out: tokens of the conversation that did not fit; None where there is none.
        asked: the conversation, where the answer can be rated.
        user: whom the client named.
        rejoin: whether the client may join a stream again.
        kept: of each group of so many answers, the second number, so many are given.
    """

    model: ServedModel
    wanted: list[WantedAnswers]
    shape: AnswerShape
    stream: bool
    prompt_tokens: int
    ignored: list[str]
    left_out: int | None = None
    asked: list[Message] | None = None
    user: str | None = None
    rejoin: bool = False
    kept: tuple[int, int] = (1, 1)

    def usage(self, completion: int) -> AnswerUsage:
        """The usage once so many tokens have been generated."""
        left_out = self.left_out or 0
        return AnswerUsage(prompt=self.prompt_tokens, completion=completion, left_out=left_out)

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says besides the body."""
        headers: dict[str, str] = {}
        if self.left_out is not None:
            headers[LEFT_OUT] = str(self.left_out)
        headers.update(named(self.ignored))
        return headers


@dataclass(frozen=True, kw_only=True)
class Started:
    """Answers that have been let in.

    Attributes:
        generation: to be read.
        times: measures each answer.
        place: what they hold until it is closed.
        headers: of the answer: what is left of the key's limits.
    """

    generation: Generation
    times: list[AnswerTimes]
    place: contextlib.ExitStack
    headers: dict[str, str]


class Service:
    """Answers requests with the models of a server.

    Args:
        models: all of them.
        settings: the server's.
        drain: how it ends.
        metrics: what is measured.
        exchanges: remembers answers, where they can be rated.
        shared: knows the answers of other servers, where there are any.
    """

    def __init__(
        self,
        models: Models,
        settings: ServerSettings,
        drain: Drain,
        metrics: Metrics,
        *,
        exchanges: Exchanges | None,
        shared: SharedAnswers | None = None,
    ) -> None:
        self.models = models
        self._settings = settings
        self._drain = drain
        self._metrics = metrics
        self._exchanges = exchanges
        self._shared = shared
        # How fast a prompt is answered tells whether another one began alike. Strangers would
        # learn that of each other; without keys on this machine alone there is one caller.
        self._callers_are_known = bool(settings.api_key_file) or not settings.allow_anonymous
        self._memory = AnswerMemory(settings.max_answer_bytes)
        self._recordings = Recordings(
            settings.rejoin_seconds,
            settings.stream_keep_alive,
            most_bytes=settings.max_answer_bytes // 4,
        )
        self.limits = RateLimits(
            requests=settings.requests_per_minute,
            tokens=settings.tokens_per_minute,
            at_once=settings.requests_at_once,
            storage=settings.rate_limit_storage,
        )

    async def respond(self, request: Request, ask: Ask) -> Response:
        """The answer, whole or as a stream.

        Raises:
            ApiError: it is refused, or the model failed.
            ClientGone: nobody waits for it.
        """
        started = await self._start(
            request, ask.model, ask.wanted, ask.prompt_tokens, whole=not ask.stream
        )
        headers = {**started.headers, **ask.headers}
        if ask.stream:
            remember = functools.partial(self._remember, ask, request.state.owner)

            def failed(error: ApiError) -> None:
                request.state.failed = error.status

            events = _stream(started.generation, ask, remember, failed)
            if not ask.rejoin:
                return self._streamed(events, headers, started.place)
            with contextlib.ExitStack() as unless_it_stays:
                unless_it_stays.callback(started.place.close)
                if await has_gone(request):  # and knows no id to join again
                    raise ClientGone
                unless_it_stays.pop_all()
            recording = self._recordings.record(
                ask.shape.answer_id,
                request.state.owner,
                events,
                started.place,
                give_up=started.generation.give_up,
            )
            if self._shared is not None:
                self._shared.follow(ask.shape.answer_id, recording)
            # The first event may be long in coming, where others are answered first.
            return self._streamed(recording.read(0), {**headers, GENERATION: ask.shape.answer_id})
        with started.place:
            async with while_read(request.receive):
                outputs = await _outputs(started.generation, ask.wanted)
        outputs_kept = most_probable(outputs, *ask.kept)
        await self._remember(ask, request.state.owner, [output.text for output in outputs_kept])
        usage = ask.usage(sum(len(output.token_ids) for output in outputs))
        body = sse.json_bytes(ask.shape.whole(outputs_kept, usage))
        return Response(body, headers=headers, media_type="application/json")

    async def rejoin(self, request: Request, answer_id: str, first: int) -> Response:
        """The events of a stream from a number on.

        Raises:
            ApiError: 404, there is none for this key (any more).
        """
        recording = await self._kept(answer_id, request.state.owner)
        return self._streamed(recording.read(first), {})

    async def stop(self, request: Request, answer_id: str) -> None:
        """End a stream that could be joined again.

        Raises:
            ApiError: 404, there is none for this key (any more).
        """
        kept = await self._kept(answer_id, request.state.owner)
        if isinstance(kept, Recording):
            kept.stop()
        else:
            await kept.stop()

    async def begin(self) -> None:
        """Say in the log which stores that servers share do not answer."""
        with contextlib.suppress(ApiError):
            await self.limits.check()
        if self._shared is not None:
            await self._shared.check()

    async def close(self) -> None:
        """End what continues without a client."""
        self._recordings.close()
        await self.limits.close()
        if self._shared is not None:
            await self._shared.close()

    async def _kept(self, answer_id: str, owner: str) -> Recording | SharedStream:
        """A stream of this server, or of another one."""
        kept: Recording | SharedStream | None = self._recordings.of(answer_id, owner)
        if kept is None and self._shared is not None:
            kept = await self._shared.stream(answer_id, owner)
        if kept is None:
            raise ApiError(
                404, "There is no such answer, or it is not kept any more", code="not_found"
            )
        return kept

    async def _remember(self, ask: Ask, owner: str, answers: list[str]) -> None:
        """Keep an answer in memory for a while, so that it can be rated."""
        if self._exchanges is not None and ask.asked is not None and any(answers):
            exchange = Exchange(
                owner=owner,
                user=ask.user,
                model=ask.model.name,
                messages=ask.asked,
                answers=answers,
            )
            self._exchanges.remember(ask.shape.answer_id, exchange)
            if self._shared is not None:
                await self._shared.remember(ask.shape.answer_id, exchange)

    def _streamed(
        self,
        events: AsyncGenerator[bytes, None],
        headers: dict[str, str],
        place: contextlib.ExitStack | None = None,
    ) -> Response:
        held = place if place is not None else contextlib.ExitStack()
        seconds = self._settings.request_timeout + _READING_SECONDS
        return EventStream(events, headers, place=held, seconds=seconds)

    async def one_answer(
        self, request: Request, model: ServedModel, wanted: WantedAnswers
    ) -> tuple[Output, AnswerTimes, dict[str, str]]:
        """One whole answer, how long it took, and the headers that say what is left of limits.

        Raises:
            ApiError, ClientGone: as for `respond`.
        """
        started = await self._start(request, model, [wanted], len(wanted.prompt_ids), whole=True)
        with started.place:
            async with while_read(request.receive):
                outputs = await _outputs(started.generation, [wanted])
        return outputs[0], started.times[0], started.headers

    async def _start(
        self,
        request: Request,
        model: ServedModel,
        wanted: list[WantedAnswers],
        prompt_tokens: int,
        *,
        whole: bool,
    ) -> Started:
        """Let answers in, or refuse them."""
        owner = request.state.owner
        answers = sum(w.params.n for w in wanted)
        longest = sum(w.params.n * w.params.max_tokens for w in wanted)
        with contextlib.ExitStack() as place:
            place.enter_context(self.limits.at_once(owner))
            place.enter_context(model.admission.admitted(answers))
            times = [self._metrics.answer(model.name) for _ in range(answers)]
            generation = Generation(
                model.llm,
                wanted,
                prefix_key=owner if self._callers_are_known else None,
                times=times,
                drain=self._drain,
                deadline=self._settings.request_timeout,
                keep_alive=self._settings.stream_keep_alive,
                memory=self._memory,
                whole=whole,
            )
            headers = await self.limits.charge(owner, prompt_tokens + longest)
            self._metrics.prompt(model.name, prompt_tokens)
            generation.begin()
            place.callback(generation.end_unread)
            held = place.pop_all()
            # A slow reader holds no place that others could have.
            generation.when_made(held.close)
            return Started(generation=generation, times=times, place=held, headers=headers)


async def _outputs(generation: Generation, wanted: list[WantedAnswers]) -> list[Output]:
    prompts = [w.prompt_ids for w in wanted for _ in range(w.params.n)]
    pieces: list[list[Piece]] = [[] for _ in prompts]
    async with contextlib.aclosing(generation.events()) as events:
        async for event in events:
            if event is not None:
                pieces[event[0]].append(event[1])
    return [joined(ids, parts) for ids, parts in zip(prompts, pieces, strict=True)]


async def _stream(
    generation: Generation,
    ask: Ask,
    remember: Callable[[list[str]], Awaitable[None]],
    failed: Callable[[ApiError], object],
) -> AsyncGenerator[bytes, None]:
    """The events of a stream; what fails after its begin is one of them, and told to `failed`."""
    completion = 0
    texts = [""] * sum(w.params.n for w in ask.wanted)
    # Sent with the first piece, unless that is long in coming: a part less to write and to read.
    begin = ask.shape.begin()
    try:
        async with contextlib.aclosing(generation.events()) as events:
            async for event in events:
                if event is None:
                    yield begin or sse.KEEP_ALIVE
                    begin = b""
                    continue
                completion += len(event[1].token_ids)
                texts[event[0]] += event[1].text
                if written := ask.shape.piece(*event):
                    yield begin + written
                    begin = b""
    except ApiError as error:
        failed(error)
        yield begin + ask.shape.failed(error)
        return
    finally:
        await remember(texts)
    yield begin + ask.shape.end(ask.usage(completion))


def most_probable(outputs: list[Output], kept: int, made: int) -> list[Output]:
    """Of each `made` answers in a row the `kept` whose tokens are most probable in the mean."""
    if kept == made:
        return outputs
    groups = [outputs[start : start + made] for start in range(0, len(outputs), made)]
    return [best for group in groups for best in sorted(group, key=_surprise)[:kept]]


def _surprise(output: Output) -> float:
    return -sum(entry.logprob for entry in output.logprobs) / max(1, len(output.logprobs))
