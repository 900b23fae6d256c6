"""Every answer to any request is one that the OpenAPI description has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings

from tallyformer.server.settings import ServerSettings

from .conftest import running
from .test_fuzz import EXAMPLES

schemathesis = pytest.importorskip("schemathesis")
described = pytest.importorskip("schemathesis.specs.openapi.checks")
CHECKS = (
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_headers_conformance,
    described.response_schema_conformance,
)
"""Not that all is taken which the description allows: it does not have every limit."""


def test_every_answer_is_described(tally_folder: Path, tmp_path: Path) -> None:
    limits = ServerSettings(
        models={"tiny": tally_folder},
        feedback=f"sqlite:///{tmp_path / 'feedback.db'}",
        request_timeout=0.3,
    )
    with running(limits) as server:
        server.wait_until_ready()
        schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 12
        for operation in operations:
            _check(operation)


def test_a_stream_is_described_wherever_there_is_one(http: httpx2.Client) -> None:
    described = http.get("/openapi.json").json()
    streams = 0
    for path, operations in described["paths"].items():
        taken = operations.get("post", {}).get("requestBody")
        if taken is None:
            continue
        name = taken["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        fields = described["components"]["schemas"][name]
        if "stream" not in fields["properties"]:
            continue
        [example] = fields["examples"]
        body = {**example, "model": "tiny", "stop": [" "], "stream": True}
        kind = http.post(path, json=body).headers["content-type"].partition(";")[0]
        assert kind in operations["post"]["responses"]["200"]["content"], path
        streams += 1
    assert streams == 4


def _check(operation: Any) -> None:
    """No 5xx, and nothing that the description does not have, for what it allows and what not."""

    @settings(
        max_examples=max(1, EXAMPLES // 12), deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        answer = case.call()
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code < 500 or answer.json()["error"]["code"] == "timeout"

    check()
