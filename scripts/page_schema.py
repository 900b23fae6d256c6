"""Print the part of the API's schema that the page uses, for openapi-typescript."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tallyformer.server.app import create_app
from tallyformer.server.settings import ServerSettings

USED = (
    "/v1/models",
    "/v1/chat/completions",
    "/tokenize",
    "/welcome",
    "/v1/runs",
    "/v1/runs/{run}",
    "/v1/runs/{run}/curves/{curve}",
    "/v1/runs/{run}/samples/{curve}",
)
_REF = "#/components/schemas/"


def page_schema() -> dict[str, Any]:
    """OpenAPI with the used paths alone, and the shapes that those name."""
    whole = create_app(ServerSettings(runs=Path(__file__).parent)).openapi()
    paths = {path: whole["paths"][path] for path in USED}
    shapes = whole["components"]["schemas"]
    kept: dict[str, Any] = {}
    waiting = _named(paths)
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept[name] = shapes[name]
            waiting |= _named(shapes[name])
    components = {"schemas": {name: kept[name] for name in sorted(kept)}}
    return {"openapi": whole["openapi"], "info": {"title": "TallyFormer", "version": "0"}} | {
        "paths": paths,
        "components": components,
    }


def _named(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = value.get("$ref")
        names = {here.removeprefix(_REF)} if isinstance(here, str) else set()
        return names.union(*(_named(inner) for inner in value.values()))
    return set().union(*(_named(inner) for inner in value)) if isinstance(value, list) else set()


if __name__ == "__main__":
    json.dump(page_schema(), sys.stdout, indent=1)
