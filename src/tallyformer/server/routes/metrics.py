"""`/metrics`."""

from __future__ import annotations

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from tallyformer.server.metrics import Metrics


def add_metrics_route(app: FastAPI, metrics: Metrics) -> None:
    """`GET /metrics`."""

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def numbers() -> Response:
        """Numbers for Prometheus, in its text format."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
