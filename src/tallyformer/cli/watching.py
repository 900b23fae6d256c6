"""The Runs page beside a training: a process of its own, which ends with the training.

The address is opened before the training begins, so that what is wrong with it is said then; from
there on nothing that happens to the page reaches the training.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from tallyformer.child import child
from tallyformer.cli.setting_options import needing_serve
from tallyformer.errors import RunError

HOST = "127.0.0.1"
PORT = 8001
_CODE = """
import os, socket, sys
os.nice(10)
from tallyformer.cli.failures import exit_status_of
def show():
    from pathlib import Path
    from tallyformer.server.run import serve_on
    from tallyformer.server.settings import ServerSettings
    settings = ServerSettings(runs=Path(sys.argv[2]))
    serve_on(socket.socket(fileno=int(sys.argv[1])), settings, log=False)
sys.exit(exit_status_of(show))
"""
"""Behind everything else that wants the processor: the training goes first."""


@contextlib.contextmanager
def watched(run: Path, port: int | None, program: str) -> Iterator[None]:
    """Show the runs beside `run`, and that one first, as long as the block lasts.

    Args:
        run: the run's folder; it need not be there yet.
        port: to listen on; None takes 8001, or any free one where that is in use.
        program: what the user types to start this program.

    Raises:
        RunError: the port cannot be listened on.
    """
    with needing_serve():
        from tallyformer.server.listening import url_of
        from tallyformer.server.run import serve_on  # noqa: F401 - the child needs it
    folder = run.absolute().parent
    with contextlib.ExitStack() as stack:
        with _listener(port) as listener:
            url = f"{url_of(listener)}/runs"
            arguments = (str(listener.fileno()), str(folder))
            page = stack.enter_context(
                child(_CODE, arguments, stderr=subprocess.DEVNULL, pass_fds=(listener.fileno(),))
            )
        click.echo(f"runs:   {url}", err=True)
        try:
            yield
        finally:
            again = shlex.join([program, "runs", "--folder", str(folder)])
            if page.poll() is not None:
                click.echo(f"The Runs page had ended early. See it with: {again}", err=True)
            else:
                click.echo(f"The Runs page ends with the run. See it again: {again}", err=True)


@contextlib.contextmanager
def _listener(port: int | None) -> Iterator[socket.socket]:
    from tallyformer.server.listening import listening

    if port is not None:
        with listening(HOST, port, "Choose another --watch-port, or leave it out") as listener:
            yield listener
        return
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(listening(HOST, PORT))
        except RunError:
            listener = stack.enter_context(listening(HOST, 0))
        yield listener
