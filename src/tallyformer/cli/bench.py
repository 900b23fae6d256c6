"""`tallyformer bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallyformer.cli.quiet import quieten_libraries
from tallyformer.errors import RunError, UsageError
from tallyformer.inference.runner_names import RUNNERS
from tallyformer.interrupt import watch_signals
from tallyformer.packages import what_to_install

if TYPE_CHECKING:
    from tallyformer.bench.measuring import Cell
    from tallyformer.bench.running import Wanted


class _Several(click.ParamType[tuple[Any, ...]]):
    """Values between commas."""

    name = "list"

    def __init__(self, one: Callable[[str], Any], least: float, form: str) -> None:
        self._one, self._least, self._form = one, least, form

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """The values, in their order, each once."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            several = tuple(dict.fromkeys(self._one(part) for part in value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is not {self._form}", param, ctx)
        if not all(self._least <= number < float("inf") for number in several):
            self.fail(f"{value!r} is not {self._form}", param, ctx)
        return several


class _Loads(_Several):
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """None at all, or shares."""
        return () if value == "none" else super().convert(value, param, ctx)


_COUNTS = _Several(int, 1, "whole numbers of at least 1, with commas between them")
_SHARES = _Loads(float, 0.01, "shares of at least 0.01, with commas between them, or none")
_SECONDS = click.FloatRange(min=0.1, max=86400)
_MILLISECONDS = click.FloatRange(min=0, min_open=True, max=1e9)


@click.command()
@click.argument("target", metavar="FOLDER|URL")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the report; new or empty. Default: bench/NAME-TIME.",
)
@click.option(
    "--prompt-tokens",
    type=_COUNTS,
    default="4,32,128,250",
    show_default=True,
    metavar="N,...",
    help="Lengths of prompts.",
)
@click.option(
    "--output-tokens",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    metavar="N",
    help="Length of answers.",
)
@click.option(
    "--streams",
    type=_COUNTS,
    default="1,4,16,64",
    show_default=True,
    metavar="N,...",
    help="Requests at once.",
)
@click.option(
    "--load",
    "loads",
    type=_SHARES,
    default="0.25,0.5,0.8,1.0",
    show_default=True,
    metavar="SHARE,...",
    help="Rates of arrivals as shares of the capacity, which is measured with the most streams; "
    "or none.",
)
@click.option(
    "--seconds", type=_SECONDS, default=10, show_default=True, help="That each cell is measured."
)
@click.option(
    "--warmup",
    type=_SECONDS,
    default=1,
    show_default=True,
    help="Seconds, at least, that are dropped before.",
)
@click.option(
    "--timeout",
    type=_SECONDS,
    default=120,
    show_default=True,
    help="Seconds after which a request has failed.",
)
@click.option(
    "--target-ttft-ms",
    type=_MILLISECONDS,
    default=200,
    show_default=True,
    help="Latest first token of a good answer, in milliseconds.",
)
@click.option(
    "--target-itl-ms",
    type=_MILLISECONDS,
    default=50,
    show_default=True,
    help="Longest mean time between its tokens, in milliseconds.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of prompts and arrivals.",
)
@click.option("--dtype", metavar="NAME,...", help="Of a folder's weights. Default: as saved.")
@click.option("--device", metavar="NAME,...", help="Default: the GPU if there is one.")
@click.option(
    "--runner",
    type=click.Choice(RUNNERS),
    help="What computes a folder's model. Default: native on a CPU where it can, else torch.",
)
@click.option("--model", metavar="NAME", help="A server's model. Default: its only one.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A server's API key, alone in a file.",
)
@click.option(
    "--endpoint",
    type=click.Choice(["completions", "chat"]),
    help="Of a server. Default: completions if it is there, else chat.",
)
@click.option(
    "--count-chunks",
    is_flag=True,
    help="Count chunks as tokens, for a server that sends no usage in streams.",
)
def bench(target: str, out: Path | None, **options: Any) -> None:
    """Measure how fast a model's folder or a server answers, and how many at once.

    Any server that speaks OpenAI's API can be measured. Writes raw JSON, a table, plots and a
    page. Ctrl-C leaves a report of what had been measured.
    """
    quieten_libraries()
    try:
        from tallyformer.bench.folder import new_folder
        from tallyformer.bench.running import run_bench
        from tallyformer.bench.settings import BenchSettings
    except ModuleNotFoundError as error:
        message = what_to_install(error, "bench")
        if message is None:
            raise
        raise RunError(message) from None

    wanted = {name: options.pop(name) for name in list(BenchSettings.__dataclass_fields__)}
    targets = _server(target, options) if "://" in target else _models(target, options)
    folder = new_folder(out, target)
    with watch_signals() as interruption:
        run_bench(
            target,
            targets,
            BenchSettings(**wanted),
            folder,
            tell=_say,
            stopped=lambda: interruption.signal_number is not None,
        )
    click.echo(f"report: {folder / 'report.html'}")


def _server(url: str, options: dict[str, Any]) -> Sequence[Wanted]:
    from tallyformer.bench.running import ServerWanted
    from tallyformer.bench.server_target import api_url, read_key

    for name in ("dtype", "device", "runner"):
        if options[name] is not None:
            raise UsageError(
                f"--{name}: is for a model's folder; the server decides it. Leave it out"
            )
    file = options["api_key_file"]
    return [
        ServerWanted(
            api_url(url),
            model=options["model"],
            key=read_key(file) if file else None,
            endpoint=options["endpoint"],
            count_chunks=options["count_chunks"],
        )
    ]


def _models(folder: str, options: dict[str, Any]) -> Sequence[Wanted]:
    from tallyformer.bench.running import ModelWanted

    for name in ("model", "api_key_file", "endpoint", "count_chunks"):
        if options[name]:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: is for a server's URL, and {folder} is none. Leave it out")
    if not (Path(folder) / "config.json").is_file():
        raise UsageError(
            f"{folder}: is neither a model's folder (it has no config.json) nor a URL. Give a "
            "folder as runs/quickstart/model, or a URL as http://127.0.0.1:8000/v1"
        )
    wanted = [
        ModelWanted(Path(folder), dtype=dtype, device=device, runner=options["runner"])
        for device in _names(options["device"])
        for dtype in _names(options["dtype"])
    ]
    for one in wanted:
        one.check()
    return wanted


def _names(given: str | None) -> list[str | None]:
    """Each once."""
    if given is None:
        return [None]
    return list(dict.fromkeys(name.strip() for name in given.split(",")))


def _say(cell: Cell) -> None:
    """A line on standard error when a cell is finished."""
    summary = cell.summary
    parts = [f"{summary.tokens_per_second:,.1f} tokens/s"]
    if summary.ttft_ms:
        parts.append(f"first token after {summary.ttft_ms.percentiles[50]:.3g} ms")
    parts.append(f"{summary.requests - summary.failed} answers")
    if summary.failed:
        parts.append(click.style(f"{summary.failed} failed", fg="red"))
    click.echo(f"{cell.title}: {', '.join(parts)}", err=True)
