"""`create_app`: the whole application for some settings."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from tallyformer import __version__
from tallyformer.server.drain import Drain, Draining
from tallyformer.server.failures import add_failure_handlers
from tallyformer.server.feedback.exchanges import Exchanges
from tallyformer.server.guard import close_routes
from tallyformer.server.json_endpoint import ShortWay, serve_directly
from tallyformer.server.keys import ApiKeys
from tallyformer.server.metrics import Metrics
from tallyformer.server.middleware.access_log import AccessLog
from tallyformer.server.middleware.body import Bodies
from tallyformer.server.middleware.last_resort import LastResort
from tallyformer.server.middleware.origins import Origins
from tallyformer.server.middleware.request_id import HEADER, RequestIds
from tallyformer.server.models import Models
from tallyformer.server.rate_limits import REQUESTS, TOKENS, RateLimits
from tallyformer.server.routes.chat import add_chat_routes
from tallyformer.server.routes.completions import add_completion_routes
from tallyformer.server.routes.docs import OPEN_DOCS, add_docs_route
from tallyformer.server.routes.earlier import add_earlier_routes
from tallyformer.server.routes.generations import add_generation_routes
from tallyformer.server.routes.health import OPEN_PATHS, add_health_routes
from tallyformer.server.routes.metrics import add_metrics_route
from tallyformer.server.routes.models import add_model_routes
from tallyformer.server.routes.native import add_native_routes
from tallyformer.server.routes.page import PAGE_PATHS, add_page_routes
from tallyformer.server.routes.responses import add_response_routes
from tallyformer.server.routes.runs import OPEN_REPORTS, add_run_routes
from tallyformer.server.routes.tokens import add_token_routes
from tallyformer.server.schemas.errors import EVERYWHERE, documented
from tallyformer.server.service import GENERATION, IGNORED, LEFT_OUT, Service
from tallyformer.server.settings import ServerSettings
from tallyformer.server.shared_answers import SharedAnswers

_RATE_WORDS = ("limit", "remaining", "reset")
EXPOSED_HEADERS = (
    HEADER,
    "retry-after",
    IGNORED,
    LEFT_OUT,
    GENERATION,
    *(f"x-ratelimit-{what}-{of}" for what in _RATE_WORDS for of in (REQUESTS, TOKENS)),
)
"""Headers of answers that a page's script may read."""
MOST_ASKED = {"/v1/chat/completions", "/v1/completions"}


def create_app(
    settings: ServerSettings,
    models: Models | None = None,
    drain: Drain | None = None,
    keys: ApiKeys | None = None,
) -> FastAPI:
    """The application; models are loaded when it starts, one after the other, in the background.

    Args:
        settings: all of them.
        models: those of the settings, if the caller wants to watch them.
        drain: how the server ends, if the caller ends it.
        keys: those of the settings, if the caller loads them again.

    Raises:
        UsageError: the file of keys cannot be used.
    """
    known = keys or served_keys(settings)
    served = models or served_models(settings)
    ending = drain or Drain()
    metrics = Metrics(time.monotonic)
    exchanges = Exchanges() if settings.feedback else None
    shared = SharedAnswers.of(
        settings.answer_storage,
        patience=settings.rejoin_seconds,
        keep_alive=settings.stream_keep_alive,
    )
    service = Service(served, settings, ending, metrics, exchanges=exchanges, shared=shared)
    ends: list[Callable[[], Awaitable[None]]] = [service.close]
    served.when_ready(lambda model: metrics.watch(model.name, model.llm))
    layers = _middleware(settings, ending, metrics)
    app = FastAPI(
        title="TallyFormer",
        version=__version__,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=documented(*EVERYWHERE),
        middleware=layers,
        lifespan=_loading(served, service, ends),
    )
    app.state.models = served
    add_failure_handlers(app)
    # Routes are looked through in this order: those first that are asked most.
    add_chat_routes(app, service)
    add_completion_routes(app, service)
    add_response_routes(app, service)
    add_native_routes(app, service)
    add_generation_routes(app, service)
    add_health_routes(app, served, ending, service.limits)
    add_model_routes(app, served, runs=settings.runs is not None)
    add_token_routes(app, service)
    add_metrics_route(app, metrics)
    add_earlier_routes(app, service)
    if settings.feedback and exchanges is not None:
        ends.append(_add_feedback(app, settings.feedback, exchanges, shared, service.limits))
    if settings.runs is not None:
        add_run_routes(app, settings.runs)
    add_docs_route(app)
    add_page_routes(app)
    serve_directly(app.router.routes, MOST_ASKED)
    close_routes(app.router.routes, known, OPEN_PATHS | OPEN_DOCS | PAGE_PATHS | OPEN_REPORTS)
    app.middleware_stack = ShortWay(app, MOST_ASKED, layers)
    return app


def _add_feedback(
    app: FastAPI,
    url: str,
    exchanges: Exchanges,
    shared: SharedAnswers | None,
    limits: RateLimits,
) -> Callable[[], Awaitable[None]]:
    """Add its routes; the result lets go of the database."""
    # Only here are SQLAlchemy and Alembic needed.
    from tallyformer.server.feedback.store import FeedbackStore
    from tallyformer.server.routes.feedback import add_feedback_routes

    store = FeedbackStore(url)
    add_feedback_routes(app, exchanges, shared, store, limits)
    return functools.partial(asyncio.to_thread, store.close)


def served_keys(settings: ServerSettings) -> ApiKeys | None:
    """The keys that the settings name; None lets everybody in.

    Raises:
        UsageError: the file of keys cannot be used.
    """
    return ApiKeys.read(settings.api_key_file) if settings.api_key_file else None


def served_models(settings: ServerSettings) -> Models:
    """The models that the settings name, not loaded yet."""
    load = functools.partial(
        load_served_model, dtype=settings.dtype, device=settings.device, runner=settings.runner
    )
    return Models(settings.models, load, settings.max_waiting)


def load_served_model(folder: Path, **how: Any) -> Any:
    """A folder's model, ready to answer.

    Args:
        folder: where it is.
        how: as for `LLM.from_pretrained`.
    """
    from tallyformer.inference.async_llm import AsyncLLM
    from tallyformer.inference.llm import LLM
    from tallyformer.inference.sampling_params import SamplingParams

    llm = LLM.from_pretrained(folder, **how)
    llm.generate([[llm.tokenizer.eot_id]], SamplingParams(max_tokens=1))
    return AsyncLLM(llm)


def _middleware(settings: ServerSettings, drain: Drain, metrics: Metrics) -> list[Middleware]:
    """From the outermost to the innermost.

    What is outside of `Origins` refuses only what no allowed page sends.
    """
    return [
        Middleware(RequestIds),
        Middleware(AccessLog, ended=metrics.ended),
        Middleware(
            Origins,
            hosts=settings.allowed_hosts,
            origins=settings.allowed_origins,
            exposed=EXPOSED_HEADERS,
        ),
        Middleware(LastResort),
        Middleware(Draining, drain=drain, always=OPEN_PATHS),
        Middleware(Bodies, most_bytes=settings.max_body_bytes, seconds=settings.receive_timeout),
    ]


def _loading(
    models: Models, service: Service, ends: Sequence[Callable[[], Awaitable[None]]]
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(begun) for begun in (models.load_all(), service.begin())]
        yield
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for end in ends:
            await end()
        await models.close()

    return lifespan
