"""The page at /docs: every endpoint with what it does and an example, without a script."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;"
    "color-scheme:light dark}pre{overflow:auto;padding:.75rem;border:1px solid #8888;"
    "border-radius:6px}h2{margin-top:2.5rem}code{font-size:.9em}"
)


def docs_page(openapi: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    title = html.escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
        '<p>Every field: <a href="openapi.json">openapi.json</a>. A key is sent as '
        "<code>Authorization: Bearer KEY</code>.</p>"
        f"{''.join(_endpoints(openapi))}</html>"
    )


def _endpoints(openapi: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            name = html.escape(f"{method.upper()} {path}")
            words = html.escape(operation.get("description", ""))
            example = html.escape(_curl(openapi, method, path, operation))
            yield f"<h2><code>{name}</code></h2><p>{words}</p><pre>{example}</pre>"


def _curl(openapi: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    call = f"curl -s $URL{path}" + ("" if method in ("get", "post") else f" -X {method.upper()}")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None:
        return call
    schema = openapi["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    example = json.dumps(schema["examples"][0])
    return f"{call} -H 'Content-Type: application/json' -d '\n  {example}'"
