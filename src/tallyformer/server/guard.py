"""Every route is closed unless it is declared open.

The guard stands around each route that an app has, behind the choice of the route: no path is
parsed again to decide who may pass, and a route that is added later cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tallyformer.server import headers
from tallyformer.server.api_error import ApiError
from tallyformer.server.keys import ApiKeys

ANYBODY = "anonymous"
_MISSING = "Give an API key: Authorization: Bearer KEY"
_WRONG = "This API key is not known here. Check it, or ask for a new one"


class Guard:
    """Lets a request with a known key through; the key's owner is in `scope["state"]["owner"]`.

    Args:
        app: of one route.
        keys: None lets everybody in.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["state"]["owner"] = self._owner(scope)
        await self._app(scope, receive, send)

    def _owner(self, scope: Scope) -> str:
        if self._keys is None:
            return ANYBODY
        scheme, _, key = (headers.value(scope, b"authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.value(scope, b"x-api-key") or ""
        key = key.strip()
        if not key:
            raise _refused(_MISSING, "missing_api_key")
        owner = self._keys.owner(key)
        if owner is None:
            raise _refused(_WRONG, "invalid_api_key")
        return owner


def close_routes(routes: Collection[object], keys: ApiKeys | None, open_paths: set[str]) -> None:
    """Put a guard around every route but those with these paths, as they are declared.

    Raises:
        AssertionError: something is not a plain route, so that it could not be guarded.
    """
    for route in routes:
        assert isinstance(route, Route), route
        if route.path not in open_paths:
            route.app = Guard(route.app, keys)


def _refused(message: str, code: str) -> ApiError:
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})
