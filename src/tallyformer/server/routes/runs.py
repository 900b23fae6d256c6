"""Training runs of a folder, as they grow; only where the server was given one.

Nothing here writes. A report is a page that somebody's run has written: it opens in a sandbox of
its own, where no script runs and nothing can be asked of this server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallyformer.monitor.inside import Unreadable
from tallyformer.monitor.runs import RunsFolder
from tallyformer.server.api_error import ApiError
from tallyformer.server.schemas.errors import documented
from tallyformer.server.schemas.runs import Run, RunCards, RunCurve, RunReport, RunWritten
from tallyformer.server.seals import Seals
from tallyformer.server.turns import Turns

REPORT_PATH = "/report/{run}/{report:path}"
OPEN_REPORTS = {REPORT_PATH}
"""Opened by a sealed address instead of a key."""
REPORT_HEADERS = {
    "content-security-policy": "; ".join(
        (
            "sandbox",
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_LONGEST = 300
_NO_RUN = "There is no run of this name. See /v1/runs for those that there are"
_NO_CURVE = "This run has no curve of this name. See /v1/runs/NAME for those that there are"
_NO_REPORT = "There is no such report, or its address has run out. Open it from the Runs page"
_Step = Annotated[int | None, Query(ge=0, le=1 << 53)]
_Text = Annotated[str, Query(max_length=_LONGEST)]


def add_run_routes(app: FastAPI, folder: Path) -> None:
    """`/v1/runs` and what is below it, and the reports."""
    runs, seals = RunsFolder(folder), Seals()
    # A turn ends when the answer is made, however slowly it is read.
    turns = [Depends(Turns().take, scope="function")]

    def reports(run: str, names: list[str]) -> list[RunReport]:
        return [
            RunReport(
                name=name,
                address=f"/report/{quote(run, safe='')}/{quote(name)}?seal={seals.seal(run, name)}",
            )
            for name in names
        ]

    # Plain functions, so that reading a disk holds up no other request.
    @app.get("/v1/runs", tags=["runs"], dependencies=turns)
    def list_runs(search: _Text = "") -> RunCards:
        """The training runs of the folder, those that were begun last first."""
        try:
            return RunCards.of(runs.listed(search))
        except Unreadable as reason:
            raise ApiError(503, f"The folder of runs {reason}", code="runs_unreadable") from None

    @app.get("/v1/runs/{run}", tags=["runs"], responses=documented(404), dependencies=turns)
    def get_run(run: str) -> Run:
        """One run: its stages, samples and reports."""
        details = runs.details(run)
        if details is None:
            raise ApiError(404, _NO_RUN, code="run_not_found")
        return Run.seen(details, reports(run, details.reports))

    @app.get(
        "/v1/runs/{run}/curves/{curve}",
        tags=["runs"],
        responses=documented(404),
        dependencies=turns,
    )
    def get_curve(run: str, curve: str, cursor: _Text = "") -> RunCurve:
        """What is new of a curve since the answer that gave this cursor."""
        news = runs.curve(run, curve, cursor)
        if news is None:
            raise ApiError(404, _NO_CURVE, code="curve_not_found")
        return RunCurve.of(news)

    @app.get(
        "/v1/runs/{run}/samples/{curve}",
        tags=["runs"],
        responses=documented(404),
        dependencies=turns,
    )
    def get_samples(run: str, curve: str, step: _Step = None) -> RunWritten:
        """What the model in training wrote at a validation; by default at the last one."""
        written = runs.written(run, curve, step)
        if written is None:
            raise ApiError(404, _NO_CURVE, code="curve_not_found")
        return RunWritten.of(written)

    def report(request: Request) -> Response:
        run, name = request.path_params["run"], request.path_params["report"]
        try:
            known = seals.opens(request.query_params.get("seal", ""), run, name)
            text = runs.report(run, name) if known else None
        except Unreadable as reason:
            raise ApiError(404, f"This report {reason}", code="report_unreadable") from None
        if text is None:
            raise ApiError(404, _NO_REPORT, code="report_not_found")
        return Response(text, media_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    app.router.routes.append(Route(REPORT_PATH, report))
