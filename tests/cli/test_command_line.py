"""Names, help, start-up, errors and exit statuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tallyformer.cli.docs import command_page
from tallyformer.cli.failures import exit_status_of
from tallyformer.cli.lazy import CommandEntry, LazyGroup
from tallyformer.cli.main import COMMANDS
from tallyformer.cli.main import tallyformer as root
from tallyformer.errors import DataError, Interrupted, UsageError

SERVING = ("serve", "runs")
"""Commands whose options are made from the server's settings."""


def _loaded_after(arguments: list[str], heavy: set[str]) -> set[str]:
    code = (
        "import sys\n"
        "from tallyformer.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print('LOADED', *sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_loads_no_heavy_module_and_no_command() -> None:
    heavy = {"torch", "transformers", "numpy", "pydantic", "yaml", "tqdm"}
    commands = {entry.module for entry in COMMANDS.values()}
    assert not _loaded_after(["--help"], heavy | commands)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_of_a_command_loads_no_heavy_module(name: str) -> None:
    # The options of `serve` are the fields of a pydantic class.
    heavy = {"torch", "transformers", "numpy"} | ({"fastapi"} if name in SERVING else {"pydantic"})
    assert not _loaded_after([name, "--help"], heavy)


def test_config_commands_load_no_torch(recipe: Path) -> None:
    heavy = {"torch", "transformers", "numpy"}
    assert not _loaded_after(["config", "validate", "--recipe", str(recipe)], heavy)
    assert not _loaded_after(["config", "show", "--recipe", str(recipe)], heavy)


def _commands(group: click.Group, entries: dict[str, CommandEntry]) -> Any:
    for name, entry in entries.items():
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield name, entry, command


def test_the_listing_says_what_each_command_says_of_itself() -> None:
    from tallyformer.cli.sft import COMMANDS as SFT_COMMANDS
    from tallyformer.cli.sft import sft

    assert isinstance(root, LazyGroup) and isinstance(sft, LazyGroup)
    for name, entry, command in [*_commands(root, COMMANDS), *_commands(sft, SFT_COMMANDS)]:
        assert command.name == name
        assert command.help is not None
        assert " ".join(command.help.split()).startswith(entry.summary + "."), name


def test_the_committed_page_is_what_the_commands_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text(encoding="utf-8") == command_page(), "python -m tallyformer.cli.docs"


def test_a_stale_page_fails_the_check_and_is_left_alone(tmp_path: Path) -> None:
    recipes = Path(__file__).parents[2] / "docs" / "recipes.md"
    (tmp_path / recipes.name).write_bytes(recipes.read_bytes())
    page = tmp_path / "cli.md"
    call = [sys.executable, "-m", "tallyformer.cli.docs", "--folder", str(tmp_path)]
    assert subprocess.run([*call, "--check"], capture_output=True).returncode == 3
    subprocess.run(call, check=True)
    subprocess.run([*call, "--check"], check=True)
    page.write_text(page.read_text() + "x")
    done = subprocess.run([*call, "--check"], capture_output=True, text=True)
    assert done.returncode == 3 and "out of date" in done.stderr
    assert page.read_text().endswith("x")


def test_unknown_names_get_their_nearest_neighbour_and_exit_2(tallyformer: Any) -> None:
    for arguments, expected in [
        (["pretain"], "error: No such command 'pretain'. Did you mean 'pretrain'? See: tally"),
        (["prepare", "--recip", "x"], "error: No such option '--recip'. Did you mean '--recipe'?"),
        (["sft", "inspekt"], "error: No such command 'inspekt'. Did you mean 'inspect'?"),
        (["run", "--set"], "error: Option '--set' requires an argument."),
        (["run"], "error: Missing option '--recipe'."),
        (["sft"], "error: Missing option '--recipe'."),
    ]:
        done = tallyformer(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1, done.stderr
        assert not done.stdout


def test_version_and_help_exit_0_and_a_bare_call_shows_help_with_2(tallyformer: Any) -> None:
    assert tallyformer("--version").stdout.startswith("tallyformer, version ")
    assert tallyformer("-h").stdout == tallyformer("--help").stdout
    bare = tallyformer()
    assert bare.returncode == 2 and "Commands:" in bare.stderr


def _raise(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("wrong"), 2, "error: wrong\n"),
        (DataError("x.txt: is empty. Fetch it"), 3, "error: x.txt: is empty. Fetch it\n"),
        (Interrupted("stopped, all is saved", 15), 143, "error: stopped, all is saved\n"),
        (KeyboardInterrupt(), 130, "error: interrupted."),
        (OSError(errno.ENOSPC, "No space left", "/d/f"), 3, "error: /d/f: the disk is full."),
        (PermissionError(errno.EACCES, "Permission denied", "/d"), 3, "error: /d: permission d"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/d"), 3, "error: /d: file name too"),
        (OSError(errno.EIO, "Input/output error", "/d"), 3, "error: /d: input/output error. The"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status_of(_raise(error)) == status
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == 1


def test_a_lack_of_memory_outside_of_training_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    assert exit_status_of(lambda: torch.empty(2**60)) == 3
    assert capsys.readouterr().err == (
        "error: out of memory. Free memory, or use a smaller model or a shorter context\n"
    )


@pytest.mark.parametrize(
    "error", [ValueError("defect"), OSError(errno.EINVAL, "x"), EOFError(), FileNotFoundError("x")]
)
def test_a_defect_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        exit_status_of(_raise(error))


def test_a_reader_that_goes_away_ends_the_command_quietly(recipe: Path) -> None:
    script = Path(sys.executable).with_name("tallyformer")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [script, "config", "show", "--recipe", recipe], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output_is_one_line(recipe: Path) -> None:
    script = Path(sys.executable).with_name("tallyformer")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [script, "config", "show", "--recipe", recipe], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: the disk is full.") and done.stderr.count(b"\n") == 1
