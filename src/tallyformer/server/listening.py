"""The socket on which a server listens, open before anything is served."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator

from tallyformer.errors import RunError

_OTHER_FILES = 128
"""That a process has open besides connections of clients: weights, libraries, databases."""


@contextlib.contextmanager
def listening(
    host: str, port: int, fix: str = "Choose another --host or --port"
) -> Iterator[socket.socket]:
    """A socket that listens as long as the block lasts.

    Args:
        host: a name or an address.
        port: 0 takes a free one.
        fix: what helps where that fails.

    Raises:
        RunError: the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        known = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        reason = (known or "cannot be used").lower()
        raise RunError(f"{host}:{port}: {reason}. {fix}") from None
    with listener:
        yield listener


def connections_at_once(wanted: int) -> int:
    """How many connections this process can hold; its own bound of open files is raised for them.

    Args:
        wanted: as many as this, if the system allows it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if 0 <= soft < needed:
        most = needed if hard < 0 else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
        return max(1, min(wanted, soft - _OTHER_FILES))
    return wanted


def url_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
