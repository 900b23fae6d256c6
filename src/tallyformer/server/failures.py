"""Errors of FastAPI, Starlette and pydantic in our envelope."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from tallyformer.errors import InvalidRequestError
from tallyformer.server import sse
from tallyformer.server.api_error import ApiError, usual_message
from tallyformer.server.streaming import ClientGone

_LONGEST_NAME = 100
_SUBJECT = re.compile("^(Input|String|List|Dictionary) should")
_NO_OBJECT = ("model_type", "model_attributes_type", "dict_type")
_WORDS = {
    "a valid boolean": "true or false",
    "a valid integer": "an integer",
    "a valid string": "a string",
    "a valid ": "a ",
    " after validation": "",
    ", unable to parse raw data as a unicode string": ", without unpaired surrogates",
}
_NOT_JSON = "The body is not JSON. Send one JSON object"


def add_failure_handlers(app: FastAPI) -> None:
    """Every error that a route raises on purpose leaves as the envelope."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(InvalidRequestError, _invalid_request)
    app.add_exception_handler(ClientGone, _client_gone)


def invalid_request(error: InvalidRequestError) -> ApiError:
    """400 for what the engine refuses; its message begins with the field."""
    field, colon, _ = str(error).partition(":")
    return ApiError(400, str(error), param=field if colon and " " not in field else None)


def invalid_body(problems: Sequence[Any]) -> ApiError:
    """400 for a body that is not as its schema says; the first problem is told.

    The value itself is not repeated: it may be long, or private.
    """
    problem = problems[0]
    if problem["type"] == "json_invalid" or not isinstance(problem.get("loc"), tuple | list):
        return ApiError(400, _NOT_JSON)
    place = [part for part in problem["loc"][1:] if not _is_kind(part)]
    if not place:
        if problem["type"] not in ("value_error", "nesting"):
            return ApiError(400, _NOT_JSON)
        return invalid_request(InvalidRequestError(problem["msg"].removeprefix("Value error, ")))
    param = ".".join(str(part)[:_LONGEST_NAME] for part in place)
    message = _plain(problem)
    if problem["type"] == "missing":
        message = "it is required"
    return ApiError(400, f"{param}: {message}", param=param)


def _plain(problem: Any) -> str:
    """What pydantic says, in the words of JSON; it names its own classes in some of them."""
    if problem["type"] in _NO_OBJECT:
        return "it must be an object"
    words = _SUBJECT.sub("it must", problem["msg"].removeprefix("Value error, "))
    for python, json in _WORDS.items():
        words = words.replace(python, json)
    return words


def _is_kind(part: Any) -> bool:
    """Whether a part of a place names a branch of a union, not a field."""
    return isinstance(part, str) and (part in _KINDS or not part.isidentifier())


_KINDS = frozenset({"str", "int", "float", "bool", "list", "dict", "constrained-str"})


def _respond(error: ApiError) -> Response:
    body = sse.json_bytes(error.envelope)
    return Response(body, error.status, headers=error.headers, media_type="application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    # What Starlette says of a body that is not UTF-8, or has endless numbers, names no fix.
    message = _NOT_JSON if status == 400 else usual_message(status, str(error.detail))
    headers = {"Allow": _allowed(request)} if status == 405 else error.headers
    return _respond(ApiError(status, message, headers=headers))


def _allowed(request: Request) -> str:
    """The methods that a path takes; Starlette tells those of the first route alone."""
    routes = [route for route in request.app.router.routes if isinstance(route, Route)]
    of_path = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in of_path for method in route.methods or ()}))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(invalid_body(error.errors()))


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidRequestError)
    return _respond(invalid_request(error))


async def _client_gone(request: Request, error: Exception) -> Response:
    """Nobody reads this; the log has nginx's number for it."""
    return Response(status_code=499)
