"""The socket on which a server listens, open before anything is served."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from tallyformer.errors import RunError


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


def url_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
