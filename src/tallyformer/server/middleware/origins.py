"""Which hosts a request may name and which pages may send it: no DNS rebinding, no foreign page."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tallyformer.server import headers, sse
from tallyformer.server.api_error import ApiError

_MOST_KEPT = 256
_HOST = re.compile(r"(?:\[(?P<address>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")


class Origins:
    """Refuses requests for foreign hosts or from foreign pages.

    A name that an attacker points at this machine is none of `hosts`, and an IP address cannot be
    pointed elsewhere, so that addresses are always allowed. Programs send no origin; a page does,
    and must be of this very host or of `origins`. Its browser is told what it may read (CORS).

    Args:
        app: what is served.
        hosts: names without port; "*" for any.
        origins: as http://localhost:5173.
        exposed: headers of answers that a page's script may read.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        origins: Collection[str],
        exposed: Collection[str],
    ) -> None:
        self._app = app
        self._app_for_pages = _Cors(
            app,
            allow_origins=tuple(origins),
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=tuple(exposed),
        )
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = {origin.lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = headers.value(scope, b"origin")
        refused = self._refusal(headers.values(scope, b"host"), origin)
        if refused is not None:
            await refused.send(scope, receive, send)
            return
        app = self._app if origin is None else self._app_for_pages
        await app(scope, receive, send)

    def _refusal(self, hosts: list[str], origin: str | None) -> ApiError | None:
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return ApiError(
                403, "This host name is not served here. Allow it: --allowed-host", code="host"
            )
        if origin is not None and not self._may_call(origin.lower(), hosts[0].lower()):
            return ApiError(
                403, "This page may not call the API. Allow it: --allowed-origin", code="origin"
            )
        return None

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).lower()
        return "*" in self._hosts or name in self._hosts or _is_address(name)

    def _may_call(self, origin: str, host: str) -> bool:
        return origin in self._origins or origin in (f"http://{host}", f"https://{host}")


class _Cors(CORSMiddleware):
    """What pages may read; a preflight is refused in the form of all errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to the browser that asks first."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refused = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
        error = ApiError(400, f"A page may not send such a request: {refused}", code="preflight")
        kept = {name: value for name, value in answer.headers.items() if "content" not in name}
        return Response(sse.json_bytes(error.envelope), 400, kept, "application/json")


@functools.lru_cache(_MOST_KEPT)
def _without_port(host: str) -> str:
    match = _HOST.fullmatch(host)
    return "" if match is None else match["address"] or match["name"] or ""


@functools.lru_cache(_MOST_KEPT)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
