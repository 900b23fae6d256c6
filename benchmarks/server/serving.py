"""Processes of a measurement: servers, and load generators beside them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
TALLYFORMER = Path(sys.executable).with_name("tallyformer")
PATIENCE = 300.0
Cores = Sequence[int] | None
Found = dict[str, Any]


@dataclass
class Server:
    """A server that runs.

    Attributes:
        url: where.
        process: its main process.
        body: what a request to it has besides prompt and length.
        ready_seconds: from the start of the process until it was ready.
        memory_mb: its resident memory, by seconds since `watching` began.
    """

    url: str
    process: subprocess.Popen[bytes]
    body: Found
    ready_seconds: float
    memory_mb: list[tuple[float, float]] = field(default_factory=list)

    def ask(self, load: Found, cores: Cores = None) -> Found:
        """Put a load on it; what the generator saw."""
        with self.asking(load, cores) as generator:
            return generator.result()

    @contextlib.contextmanager
    def asking(self, load: Found, cores: Cores = None) -> Iterator[Generator]:
        """A load generator that works while the block runs."""
        asked = json.dumps({"url": self.url, "body": self.body, **load})
        command = [*_pinned(cores), sys.executable, str(HERE / "load.py")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(asked.encode())
            process.stdin.close()
            try:
                yield Generator(process)
            finally:
                process.kill()

    @contextlib.contextmanager
    def watching(self, every: float = 0.5) -> Iterator[None]:
        """Write its memory down as long as the block runs."""
        over = threading.Event()
        self.memory_mb, began = [], time.monotonic()

        def watch() -> None:
            while not over.wait(every):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.memory_mb.append((time.monotonic() - began, self.memory()))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def memory(self) -> float:
        """Resident megabytes, of all its processes."""
        main = psutil.Process(self.process.pid)
        processes = [main, *main.children(recursive=True)]
        return round(sum(p.memory_info().rss for p in processes) / 1e6, 2)

    def cpu_seconds(self) -> float:
        """Seconds of processors that it has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def metric(self, name: str) -> float:
        """One of its own numbers, all its labels together."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith(name + "{"))

    def end(self) -> int:
        """Stop it in order; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Generator:
    """A load generator that works."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait_until_begun(self) -> None:
        """Until all its streams have their first text."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def result(self) -> Found:
        """What it found.

        Raises:
            SystemExit: it failed.
        """
        assert self._process.stdout is not None
        lines = self._process.stdout.read().splitlines()
        if self._process.wait():
            sys.exit("error: the load generator failed; its error is above")
        found: Found = json.loads(lines[-1])
        return found


def serving(
    folder: Path, *options: object, cores: Cores = None
) -> contextlib.AbstractContextManager[Server]:
    """`tallyformer serve` with one model, `m`, and then `options`."""
    port = free_port()
    command = [str(TALLYFORMER), "serve", "--port", str(port), "--model", f"m={folder}"]
    return started([*_pinned(cores), *command, *map(str, options)], port)


@contextlib.contextmanager
def started(command: Sequence[str], port: int, *, completions: bool = False) -> Iterator[Server]:
    """A server, from when it is ready until the end of the block.

    Args:
        command: starts it.
        port: where it listens.
        completions: it is ready when it answers one; else when `/ready` says so.
    """
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while (model := _answering(url) if completions else _ready(url)) is None:
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    sys.exit(f"error: {' '.join(command)} does not become ready")
                time.sleep(0.005)
            yield Server(url, process, {"model": model}, time.perf_counter() - began)
        finally:
            if process.poll() is None:
                process.kill()


def _ready(url: str) -> str | None:
    return None if _fetched(f"{url}/ready") is None else "m"


def _answering(url: str) -> str | None:
    """The name of the first model of a server that answers."""
    listed = _fetched(f"{url}/v1/models")
    if not listed:
        return None
    model: str = json.loads(listed)["data"][0]["id"]
    body = {"model": model, "prompt": "the", "max_tokens": 1}
    return None if _fetched(f"{url}/v1/completions", body) is None else model


def _fetched(url: str, body: Found | None = None) -> bytes | None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return bytes(answer.read()) if answer.status == 200 else None
    except OSError:
        return None


def _pinned(cores: Cores) -> list[str]:
    return [] if cores is None else ["taskset", "--cpu-list", ",".join(map(str, cores))]


def all_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
