"""A hub on this machine: the part of its HTTP interface that reads repositories."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class FakeHub:
    """Repositories by kind and name, such as `datasets/x/y`; each has commits, and `main` moves."""

    url: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    main: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    delivers: threading.Event = field(default_factory=threading.Event)
    """While it is cleared, the bodies of files are waited for."""

    def push(self, repository: str, files: dict[str, bytes]) -> str:
        """Make a commit; `main` is it from now on."""
        names = repr(sorted(files.items()))
        commit = hashlib.sha1(names.encode()).hexdigest()
        self.commits.setdefault(repository, {})[commit] = files
        self.main[repository] = commit
        return commit

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """The commit and the body of what a path names; None if there is no such thing."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        api = parts[0] == "api"
        parts = parts[api:]
        kind = parts.pop(0) if parts[0] in ("datasets", "models") else "models"
        repository, rest = "/".join([kind, *parts[:2]]), parts[2:]
        if repository not in self.commits:
            return None
        what, revision = (rest + ["revision", "main"][len(rest) :])[:2]
        commit = self.main[repository] if revision == "main" else revision
        files = self.commits[repository].get(commit)
        if files is None:
            return None
        name = "/".join(rest[2:])
        if what == "resolve":
            return (commit, files[name]) if name in files else None
        if what == "tree":
            return commit, _json(_tree(files, name, recursive="recursive=true" in path.lower()))
        siblings = [{"rfilename": n} for n in files]
        return commit, _json({"id": "/".join(parts[:2]), "sha": commit, "siblings": siblings})


def _tree(files: dict[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, object]]:
    below = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, object]] = {}
    for name, data in files.items():
        if name.startswith(below):
            inner = name.removeprefix(below).split("/")
            if len(inner) > 1:
                path = below + inner[0]
                entries[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            if len(inner) == 1 or recursive:
                entries[name] = _entry(name, data)
    return list(entries.values())


def _entry(name: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha1(data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": digest}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serve on loopback until the block ends; set `HF_ENDPOINT` to its `url`."""
    hub = FakeHub()
    hub.delivers.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            found = hub.answer(self.path)
            if found is None:
                error = "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound"
                self._send(404, b'{"error": "not found"}', {"X-Error-Code": error})
                return
            commit, body = found
            tag = f'"{hashlib.sha1(body).hexdigest()}"'
            self._send(200, body, {"X-Repo-Commit": commit, "ETag": tag})

        do_HEAD = do_GET  # noqa: N815 - the server's name for it

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = self.rfile.read(length)
            hub.asked.append(f"POST {self.path}")
            base, _, revision = self.path.partition("/paths-info/")
            found = hub.answer(f"{base}/tree/{revision}")
            if found is None:
                self._send(404, b"{}", {})
                return
            wanted = json.loads(asked).get("paths", [])
            body = [entry for entry in json.loads(found[1]) if entry["path"] in wanted]
            self._send(200, _json(body), {"X-Repo-Commit": found[0]})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            asked = self.headers.get("Range", "")
            if status == 200 and asked.startswith("bytes="):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                whole = len(body)
                body = body[int(first) : int(last) + 1 if last else None]
                end = int(first) + len(body) - 1
                status, headers["Content-Range"] = 206, f"bytes {first}-{end}/{whole}"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                if "/resolve/" in self.path:
                    hub.delivers.wait()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.delivers.set()
        server.shutdown()
        server.server_close()
        thread.join()
