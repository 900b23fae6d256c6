"""Serving an application until a signal comes, and ending in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import uvicorn

from tallyformer.errors import TallyFormerError, UsageError
from tallyformer.interrupt import STOP_SIGNALS
from tallyformer.server.app import create_app, served_keys, served_models
from tallyformer.server.developing import served_while_edited
from tallyformer.server.drain import Drain
from tallyformer.server.ending import LAST_SECONDS, TimedEnd, ended
from tallyformer.server.keys import ApiKeys
from tallyformer.server.listening import connections_at_once, listening, url_of
from tallyformer.server.middleware.access_log import JsonLines
from tallyformer.server.models import Models
from tallyformer.server.protocol import bounded_protocol
from tallyformer.server.settings import ServerSettings

LOGGERS = ("tallyformer.server", "tallyformer.access", "uvicorn.error")
"""Whose records are written."""
_SWITCH_SECONDS = 0.001
"""Python's own 5 ms is what a step of the engine, which takes about 10, would wait for at each
return from its library whenever the event loop is busy, as with a flood of requests."""


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers, which would end the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield


def serve(settings: ServerSettings, *, notes: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT.

    SIGHUP ends it too where a terminal is closed, and else has changed models and the file of keys
    loaded again.

    Args:
        settings: all of them.
        notes: what else the log has to say of them.

    Raises:
        RunError: the address cannot be listened on.
        TallyFormerError: a model cannot be loaded.
    """
    with listening(settings.host, settings.port) as listener:
        _log_to_stderr(logging.INFO)
        for note in notes:
            _log("note", reason=note)
        if settings.reload:
            served_while_edited(functools.partial(_serve_again, settings), listener)
        else:
            serve_on(listener, settings)


def serve_on(listener: socket.socket, settings: ServerSettings, *, log: bool = True) -> None:
    """The same on a socket that listens already.

    Args:
        log: whether to log more than warnings.

    Raises:
        TallyFormerError: a model cannot be loaded.
    """
    _log_to_stderr(logging.INFO if log else logging.WARNING)
    sys.setswitchinterval(_SWITCH_SECONDS)
    models, drain, keys = served_models(settings), Drain(), served_keys(settings)
    config = uvicorn_config(settings, models, drain, keys)

    async def reload() -> None:
        _reload_keys(settings, keys)
        await models.reload()

    _log("settings", settings=settings.redacted)
    timed = TimedEnd()
    with timed.until_here(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(
            _until_stopped(
                QuietServer(config),
                listener,
                models,
                drain,
                grace=settings.shutdown_grace,
                timed=timed,
                reload=reload,
            )
        )
    if models.failure:
        raise models.failure


def _serve_again(settings: ServerSettings, sockets: list[socket.socket]) -> None:
    """In a process that another one follows."""
    try:
        serve_on(sockets[0], settings)
    except TallyFormerError as error:
        print(f"error: {error}", file=sys.stderr)


def _reload_keys(settings: ServerSettings, keys: ApiKeys | None) -> None:
    if keys is None or settings.api_key_file is None:
        return
    try:
        keys.reload(settings.api_key_file)
    except UsageError as error:
        _log("keys kept, as the file cannot be used", reason=str(error))
    else:
        _log("keys loaded again")


def uvicorn_config(
    settings: ServerSettings,
    models: Models | None = None,
    drain: Drain | None = None,
    keys: ApiKeys | None = None,
) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        create_app(settings, models, drain, keys),
        http=bounded_protocol(
            most_connections=connections_at_once(settings.max_connections),
            most_bytes=settings.max_head_bytes,
            seconds=settings.receive_timeout,
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.keep_alive),
        timeout_graceful_shutdown=math.ceil(LAST_SECONDS),
    )


async def _until_stopped(
    server: QuietServer,
    listener: socket.socket,
    models: Models,
    drain: Drain,
    *,
    grace: float,
    timed: TimedEnd,
    reload: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Serve; at the first signal refuse what is new, at the second or after the grace end all."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    with _handled(signals, reload):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        freezing = asyncio.create_task(_freeze_what_stays(models))
        _log("listening", url=url_of(listener))
        stopped = asyncio.create_task(signals.get())
        failed = asyncio.create_task(models.failed.wait())
        await asyncio.wait([serving, stopped, failed], return_when=asyncio.FIRST_COMPLETED)
        drain.began = True
        signalled = not models.failed.is_set()
        if signalled:
            _log("ending", seconds=grace)
            timed.after(grace + LAST_SECONDS)
        hurry = asyncio.create_task(signals.get())
        await ended(server, serving, drain, grace=grace if signalled else 0.0, hurry=hurry)
        if signalled:
            timed.after(LAST_SECONDS)
        for task in (stopped, failed, hurry, freezing):
            task.cancel()
        _log("ended")


async def _freeze_what_stays(models: Models) -> None:
    """Leave what was loaded out of all collections of garbage.

    No answer continues while it is looked through.
    """
    with contextlib.suppress(Exception):  # whoever ends the server tells
        await models.until_ready()
        gc.collect()
        gc.freeze()


@contextlib.contextmanager
def _handled(
    signals: asyncio.Queue[int], reload: Callable[[], Coroutine[Any, Any, None]]
) -> Iterator[None]:
    """Put signals that ask to stop into a queue. An ignored SIGHUP stays ignored, as by nohup.

    Where no terminal can be closed, SIGHUP is an operator's: `reload` is called.
    """
    loop = asyncio.get_running_loop()
    numbers = [n for n in STOP_SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    reloads: set[asyncio.Task[None]] = set()

    def begin_reload() -> None:
        task = asyncio.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in numbers:
        if number == signal.SIGHUP and not _has_terminal():
            loop.add_signal_handler(number, begin_reload)
        else:
            loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        yield
    finally:
        for task in reloads:
            task.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)


def _has_terminal() -> bool:
    """Whether this process belongs to a terminal, which sends SIGHUP when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _log_to_stderr(level: int) -> None:
    """One line of JSON for each event, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if name.startswith("uvicorn") else level)


def _log(event: str, **fields: object) -> None:
    logging.getLogger("tallyformer.server").info(event, extra={"fields": fields})
