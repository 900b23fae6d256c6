"""Alerts and dashboard, in a real Prometheus that reads a real server."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from ..inference.conftest import tally_folder, tokenizer  # noqa: F401  (fixtures)
from ..server.conftest import PATIENCE, until
from ..server.test_load import CHAT, SHORT
from ..server.test_process import process

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
_SERIES = re.compile(r"\b(?:tallyformer|process)_[a-z_]+")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus")


def queries() -> list[str]:
    """Of the dashboard, with Grafana's variables filled in."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [e.replace("$model", ".*").replace("$__rate_interval", "10s") for e in found]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def server(tally_folder: Path) -> Iterator[str]:  # noqa: F811
    """Address of a server that is ready."""
    with process("--model", f"tiny={tally_folder}") as (_, url):
        until(lambda: httpx2.get(url + "/ready", timeout=PATIENCE).status_code == 200)
        yield url


def ask(url: str) -> None:
    httpx2.post(url + CHAT, json={**SHORT, "max_tokens": 20, "n": 2}, timeout=PATIENCE)
    httpx2.post(url + CHAT, json={**SHORT, "n": 99}, timeout=PATIENCE)


def test_every_number_that_is_asked_for_is_one_of_the_server(server: str) -> None:
    ask(server)
    exposed = set(_SERIES.findall(httpx2.get(server + "/metrics", timeout=PATIENCE).text))
    asked = {name for query in queries() for name in _SERIES.findall(query)}
    asked |= {name for rule in alerts() for name in _SERIES.findall(json.dumps(rule))}
    # An action names a histogram by its family.
    assert {name for name in asked if not any(e.startswith(name) for e in exposed)} == set()
    assert "tallyformer_queue_seconds_bucket" in asked


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["for"]


@needs_prometheus
def test_alerts_fire_when_they_should_and_else_not() -> None:
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    fired = {a["alertname"] for t in tested for a in t["alert_rule_test"] if a["exp_alerts"]}
    assert fired == {rule["alert"] for rule in alerts()}


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx2.Client]:
    """A Prometheus with our configuration that reads one server often."""
    settings = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    settings["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    settings["rule_files"] = [str(FOLDER / name) for name in settings["rule_files"]]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as running:
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=PATIENCE) as api:
                yield api
        finally:
            running.kill()


def up(api: httpx2.Client) -> bool:
    try:
        answer = api.get("/query", params={"query": "up == 1"})
    except httpx2.HTTPError:
        return False
    return answer.status_code == 200 and bool(answer.json()["data"]["result"])


@needs_prometheus
def test_every_query_of_the_dashboard_has_data_and_every_rule_is_healthy(
    server: str, tmp_path: Path
) -> None:
    def all_have_data() -> bool:
        ask(server)
        found = [api.get("/query", params={"query": query}).json() for query in queries()]
        assert all(one["status"] == "success" for one in found), found
        return all(one["data"]["result"] for one in found)

    with prometheus(tmp_path, server.removeprefix("http://")) as api:
        until(lambda: up(api))
        until(all_have_data)
        (group,) = api.get("/rules").json()["data"]["groups"]
        assert [rule["health"] for rule in group["rules"]] == ["ok"] * len(alerts())
        assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in alerts()]


def test_panels_have_units_and_words_and_do_not_overlap() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    for panel in DASHBOARD["panels"]:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
