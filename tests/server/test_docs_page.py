"""The page at /docs and the description that it is made from."""

from __future__ import annotations

from typing import Any

import httpx2

from tallyformer.server.docs_page import docs_page


def test_every_endpoint_is_on_the_page_with_its_example(http: httpx2.Client) -> None:
    page, described = http.get("/docs"), http.get("/openapi.json").json()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page.text
    assert "What is a bond?" in page.text


def test_the_examples_are_answered(http: httpx2.Client) -> None:
    described = http.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    asked = 0
    for path, methods in described["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body is None:
            continue
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        example: dict[str, Any] = schemas[name]["examples"][0]
        named = {k: "tiny" if k in ("model", "model_name") else v for k, v in example.items()}
        assert http.post(path, json=named).status_code == 200, path
        asked += 1
    assert asked == 8


def test_what_is_described_cannot_leave_its_element() -> None:
    openapi: dict[str, Any] = {
        "info": {"title": "</title><script>", "version": "1"},
        "paths": {"/<b>": {"get": {"description": "<img src=x>"}}},
    }
    page = docs_page(openapi)
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
