"""The server asks nobody for anything, whatever a request names; it only answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from .conftest import PATIENCE, until
from .test_attacks import FULL, with_text
from .test_load import CHAT
from .test_process import _address, _ready

OWN_ADDRESS = ["socket.getaddrinfo", "('127.0.0.1', 0, 0, 1, 0)"]
"""Of the listening socket."""
WATCHED = """
import atexit, json, sys
ASKED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
BEGUN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "urllib.Request")
seen = []
def watch(event, args):
    if event in ASKED + BEGUN:
        seen.append([event, repr(args)[:200]])
sys.addaudithook(watch)
from tallyformer.cli.main import main
atexit.register(lambda: print(json.dumps(seen)))
main()
"""


def bodies(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests that name an address wherever a text can stand, and as other servers fetch it."""
    for path, body in FULL.items():
        yield from ((path, named) for named in with_text(body, url))
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_image", "image_url": url},
        {"type": "file", "file": {"file_id": url}},
        {"type": "text", "text": f"![a]({url}) <img src={url}>"},
    ]
    for part in parts:
        message = {"role": "user", "content": [part]}
        yield CHAT, {"messages": [message], "max_tokens": 1}
        yield "/v1/responses", {"input": [message], "max_output_tokens": 1}
        yield "/apply-template", {"messages": [message]}
    for schema in ({"$ref": url}, {"$ref": f"{url}#/a"}, {"$schema": url, "$id": url}):
        yield CHAT, {"messages": FULL[CHAT]["messages"], "max_tokens": 1, "json_schema": schema}
    for grammar in (f'%import "{url}"', f'start: "{url}"', f"%include {url}"):
        yield "/completion", {"prompt": "a", "n_predict": 1, "grammar": grammar}
    tools = [{"type": "mcp", "server_url": url}, {"type": "web_search"}]
    yield "/v1/responses", {"input": "a", "max_output_tokens": 1, "tools": tools}


def test_no_request_makes_the_server_ask_anybody(tally_folder: Path, tmp_path: Path) -> None:
    arguments = ("--port", "0", "--model", f"tiny={tally_folder}")
    database = f"sqlite:///{tmp_path / 'feedback.db'}"
    with (
        socket.create_server(("127.0.0.1", 0)) as canary,
        subprocess.Popen(
            [sys.executable, "-c", WATCHED, "serve", *arguments, "--feedback", database],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        canary.setblocking(False)
        try:
            url = _address(server)
            until(lambda: _ready(url))
            named = f"http://127.0.0.1:{canary.getsockname()[1]}/secret"
            statuses = set()
            with httpx2.Client(base_url=url, timeout=PATIENCE) as http:
                for path, body in bodies(named):
                    statuses.add(http.post(path, json=body).status_code)
                for path in http.get("/openapi.json").json()["paths"]:
                    statuses.add(http.get(path, headers={"x-forwarded-for": named}).status_code)
            assert statuses <= {200, 400, 404, 405}
            server.terminate()
            seen = json.loads(server.communicate(timeout=PATIENCE)[0])
        finally:
            server.kill()
        assert seen == [OWN_ADDRESS]
        try:
            asked, _ = canary.accept()
        except BlockingIOError:
            return
        asked.close()
        raise AssertionError("the server asked for what a request named")
