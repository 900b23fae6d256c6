"""The chat page: files that ship with the package, under a strict policy.

Whoever opens the page needs no key; what it asks the API does. The files' names are read once, when
the application is made, so that no path in a request ever reaches the disk.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallyformer.server.api_error import ApiError

INDEX = "index.html"
PAGES = ("/", "/c/{rest:path}", "/compare", "/info", "/runs", "/runs/{rest:path}")
"""What the page shows by itself; every one is its index."""
FILES = ("/favicon.svg", "/first.js", "/assets/{name:path}")
PAGE_PATHS = {*PAGES, *FILES}
"""Everybody may have them."""
_ASSETS = "assets"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_FOREVER = "public, max-age=31536000, immutable"
"""The name of an asset holds a hash of its content."""
_ASK_AGAIN = "no-cache"


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    packed: bytes
    media_type: str
    cache: str

    def response(self, request: Request) -> Response:
        """The answer that holds it, compressed for those who take that."""
        headers = {**HEADERS, "cache-control": self.cache, "vary": "accept-encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.content, media_type=self.media_type, headers=headers)
        headers["content-encoding"] = "gzip"
        return Response(self.packed, media_type=self.media_type, headers=headers)


def read_page(folder: Traversable) -> dict[str, PageFile]:
    """The page's files by path; none where the page has not been built."""
    if not folder.joinpath(INDEX).is_file():
        return {}
    found = {entry.name: _read(entry, _ASK_AGAIN) for entry in folder.iterdir() if entry.is_file()}
    for entry in folder.joinpath(_ASSETS).iterdir():
        found[f"{_ASSETS}/{entry.name}"] = _read(entry, _FOREVER)
    return found


def add_page_routes(app: FastAPI) -> None:
    """The page at `/`."""
    page = read_page(files("tallyformer.server").joinpath("page"))

    def sent(request: Request, name: str) -> Response:
        if name not in page:
            raise ApiError(404, "The page has no such file. Load it again")
        return page[name].response(request)

    async def index(request: Request) -> Response:
        return sent(request, INDEX)

    async def file(request: Request) -> Response:
        return sent(request, request.scope["path"].removeprefix("/"))

    app.router.routes.extend(Route(path, index) for path in PAGES)
    app.router.routes.extend(Route(path, file) for path in FILES)


def _read(entry: Traversable, cache: str) -> PageFile:
    suffix = "." + entry.name.rpartition(".")[2]
    content = entry.read_bytes()
    return PageFile(
        content=content,
        packed=gzip.compress(content, mtime=0),
        media_type=_TYPES[suffix],
        cache=cache,
    )
