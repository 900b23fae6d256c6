"""`tallyformer serve --reload`: the server begins again whenever the package's code is changed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from uvicorn.supervisors import ChangeReload

PACKAGE = Path(__file__).parents[1]


def served_while_edited(serve: Callable[..., None], listener: socket.socket) -> None:
    """Serve in a process of its own, again after each change of a file; SIGTERM or SIGINT ends it.

    Args:
        serve: called with `sockets`, in that process; it can be pickled.
        listener: what is listened on all the time, so that no request is refused meanwhile.
    """
    config = uvicorn.Config("", reload=True, reload_dirs=[str(PACKAGE)], log_config=None)
    ChangeReload(config, target=serve, sockets=[listener]).run()
