"""`/docs`."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from tallyformer.server.docs_page import HEADERS, docs_page

OPEN_DOCS = {"/docs", "/openapi.json"}
"""Open without a key: they say what any server of this version can do, and nothing of this one."""


def add_docs_route(app: FastAPI) -> None:
    """`GET /docs`."""

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        """Every endpoint with an example."""
        return HTMLResponse(docs_page(app.openapi()), headers=HEADERS)
