"""The one place that turns exceptions into a line on standard error and an exit status.

0    done
1    a defect of TallyFormer itself: the traceback is printed, so that it can be reported
2    the command line or the recipe is wrong
3    an input, an artifact, the disk or the run itself failed
129  SIGHUP, 130 Ctrl-C, 143 SIGTERM; 141 the reader of our output went away
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import click

from tallyformer.artifacts.system_errors import advice, is_lack_of_memory
from tallyformer.errors import TallyFormerError
from tallyformer.interrupt import Stopped, stop_on_signals
from tallyformer.packages import what_to_install

_PERHAPS_OURS = (errno.ENOENT, errno.EBADF, errno.EINVAL, errno.ESPIPE)
DEFECT, USAGE, RUN, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141


def exit_status_of(action: Callable[[], object]) -> int:
    """Run `action`; print what a user can fix as one line and return the exit status.

    Any other exception passes through, so Python prints its traceback and exits with 1.
    """
    try:
        with stop_on_signals():
            action()
            sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        _print_usage_error(error)
        return error.exit_code
    except TallyFormerError as error:
        _print_error(str(error))
        return error.exit_status
    except Stopped as stopped:
        _print_error(f"{stopped}. Finished work is kept")
        return 128 + stopped.signal_number
    except (KeyboardInterrupt, click.Abort):
        _print_error("interrupted. Finished work is kept")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        message = what_to_install(error)
        if message is None:
            raise
        _print_error(message)
        return RUN
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        _print_error("out of memory. Free memory, or use a smaller model or a shorter context")
        return RUN
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except OSError as error:
        message = describe_os_error(error)
        if message is None:
            raise
        _print_error(message)
        _drop_output()
        return RUN
    return 0


def describe_os_error(error: OSError) -> str | None:
    """One line for what the system refused; None for what may be our own defect."""
    if error.errno is None or error.errno in _PERHAPS_OURS:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else (error.strerror or str(error)).lower()
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{reason}. {advice(error.errno)}"


def _print_usage_error(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    near = getattr(error, "possibilities", None)
    message = " ".join((error.message if near else error.format_message()).split()).rstrip(".")
    guess = f". Did you mean {near[0]!r}?" if near else "."
    context = getattr(error, "ctx", None)
    hint = f" See: {context.command_path} --help" if context else ""
    _print_error(message + guess + hint)


def _print_error(message: str) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)


def _drop_output() -> None:
    """If standard output cannot be written, point it at nothing.

    What is still buffered would fail again in the interpreter's last flush, with another message
    and exit status.
    """
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
