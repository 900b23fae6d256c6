"""Routes that are asked most, served without FastAPI's own way to a function.

That way (seven more layers, the choice among all routes, exit stacks, dependencies, the place of
the code for its messages) is long, and a first token waits for it. The description of the API, the
errors, our own layers and what the function gets stay the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Collection, Sequence

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tallyformer.server.failures import invalid_body
from tallyformer.server.streaming import ClientGone


class JsonEndpoint:
    """The application of one route, whose function takes a body and a request.

    Args:
        function: gives the response to `body` and `request`.
        body_class: of the body.
    """

    def __init__(
        self, function: Callable[..., Awaitable[Response]], body_class: type[BaseModel]
    ) -> None:
        self._function = function
        self._body_class = body_class

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what it raises is answered as for all routes.

        Raises:
            ClientGone: the client left before the body was whole.
            ApiError: the body is not as its schema says.
            Exception: what the function raises.
        """
        body = self._checked(await _whole(receive))
        request = Request(scope, receive, send)
        response = await self._function(body=body, request=request)
        await response(scope, receive, send)

    def _checked(self, sent: bytearray) -> BaseModel:
        with contextlib.suppress(ValidationError):
            return self._body_class.model_validate_json(sent)
        # Python's reader takes what pydantic's does not, lone surrogates say, and its errors are
        # those of all other routes.
        try:
            return self._body_class.model_validate(json.loads(sent))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            placed = [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
            raise invalid_body(placed) from None
        except (ValueError, RecursionError):  # no JSON, no UTF-8, or a number without end
            raise invalid_body([{"type": "json_invalid"}]) from None


async def _whole(receive: Receive) -> bytearray:
    sent = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        sent += message.get("body", b"")
        if not message.get("more_body", False):
            return sent


def serve_directly(routes: Collection[object], paths: Collection[str]) -> None:
    """Take routes with these paths out of FastAPI's hands, all but their description.

    Raises:
        AssertionError: a function takes something else than a body and a request.
    """
    for route in routes:
        if isinstance(route, APIRoute) and route.path in paths:
            taken = route.dependant
            [body] = taken.body_params
            assert (body.name, taken.request_param_name) == ("body", "request"), route
            assert not (taken.path_params or taken.query_params or taken.dependencies), route
            body_class = body.field_info.annotation
            assert isinstance(body_class, type) and issubclass(body_class, BaseModel), route
            route.app = JsonEndpoint(route.endpoint, body_class)


class ShortWay:
    """Sends requests to some paths by our own layers straight to their routes.

    Args:
        app: with all routes, guarded, and all handlers of errors; it takes what is left.
        paths: of routes that take a POST.
        middleware: our own layers, from the outermost to the innermost.
    """

    def __init__(
        self, app: FastAPI, paths: Collection[str], middleware: Sequence[Middleware]
    ) -> None:
        self._routes = {
            route.path: route
            for route in app.router.routes
            if isinstance(route, Route) and route.path in paths
        }
        self._others = app.build_middleware_stack()
        direct: ASGIApp = ExceptionMiddleware(_to_route, app.exception_handlers)
        for layer, args, options in reversed(middleware):
            direct = layer(direct, *args, **options)
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        way = self._others
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            route = self._routes.get(scope["path"])
            if route is not None:
                scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
                way = self._direct
        await way(scope, receive, send)


async def _to_route(scope: Scope, receive: Receive, send: Send) -> None:
    await scope["route"].app(scope, receive, send)
