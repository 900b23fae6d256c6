"""Clients for Node.js: every call of their scripts succeeds, and aborted ones free their places."""

from __future__ import annotations

import pytest

from ..server.conftest import KEY, Running, until
from ..server.test_load import nothing_runs
from .conftest import needs_node, ran


@needs_node
@pytest.mark.parametrize("script", ["node_openai.mjs", "vercel.mjs"])
def test_a_client_for_node_finds_all_it_asks_for(keyed: Running, script: str) -> None:
    assert ran("node", script, keyed.url, KEY).splitlines()[-1] == "all answered"
    until(lambda: nothing_runs(keyed))
