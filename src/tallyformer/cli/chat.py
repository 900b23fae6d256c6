"""`tallyformer chat`."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tallyformer.cli.options import (
    LOADING,
    load_llm,
    model_options,
    read_sampling,
    sampling_options,
)

if TYPE_CHECKING:
    from tallyformer.inference.conversation import Chat

HELP = (
    "Type a question. /reset forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C an answer."
)
_LIKE_A_COMMAND = re.compile(r"/[A-Za-z]*")


@click.command()
@model_options
@click.option("--system", metavar="TEXT", help="Instructions that stand before the first message.")
@sampling_options
def chat(system: str | None, **flags: Any) -> None:
    """Chat with a model in the terminal.

    The model sees as many of the last turns as its context holds. /reset forgets the
    conversation, /exit ends the chat, Ctrl-C ends an answer, Ctrl-D ends the chat. A question
    that is one word with a / before it is asked with two: //word. Sampling options that are not
    given are those of the model's generation_config.json.
    """
    loading = {name: flags.pop(name) for name in LOADING}
    sampling = read_sampling(flags)
    llm = load_llm(**loading)
    from tallyformer.inference.conversation import Chat

    session = Chat(llm, sampling(llm), system)
    # From here on Ctrl-C ends a line or an answer; other signals end the chat.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    click.secho(HELP, err=True, dim=True)
    while (line := _read_line()) is not None:
        if line in ("/exit", "/quit"):
            break
        if line == "/reset":
            session.reset()
            click.secho("The conversation is forgotten.", err=True, dim=True)
        elif _LIKE_A_COMMAND.fullmatch(line):
            _hint(f"There are the commands /reset and /exit. To ask {line!r}, type {'/' + line!r}.")
        elif line:
            _answer(session, line[1:] if line.startswith("//") else line)


def _read_line() -> str | None:
    """The next line without surrounding white space; None at the end of the input.

    A line that cannot be decoded is left out with a hint, and reads as an empty one.
    """
    try:
        if sys.stdin.isatty():
            _load_line_editing()
            line = input("> ")
        else:
            read = sys.stdin.buffer.readline()
            if not read:
                return None
            line = read.decode(sys.stdin.encoding)
        line.encode("utf-8")  # a terminal's undecodable bytes may come as lone surrogates
        return line.strip()
    except UnicodeError:
        _hint(f"That line is not {sys.stdin.encoding.upper()}, so it was left out.")
        return ""
    except EOFError:
        click.echo()
        return None
    except KeyboardInterrupt:
        click.echo()
        return ""


def _hint(text: str) -> None:
    click.secho(text, err=True, fg="yellow")


def _answer(session: Chat, line: str) -> None:
    """Print an answer as it is made; Ctrl-C keeps what there is of it."""
    with _noticing_ctrl_c() as pressed:
        for text in session.ask(line):
            click.echo(text, nl=False)
            sys.stdout.flush()
            if pressed.is_set():
                session.interrupt()
    click.echo()


@contextlib.contextmanager
def _noticing_ctrl_c() -> Iterator[threading.Event]:
    """Whether Ctrl-C was pressed, in place of an exception that a library's callback may lose."""
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _load_line_editing() -> None:
    """With this module loaded, `input` edits lines and recalls earlier ones."""
    import importlib

    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
