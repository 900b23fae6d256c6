"""The page is served to everybody, under a strict policy, and shadows nothing of the API."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files

import httpx2
import pytest

from tallyformer.server.routes.page import INDEX, PAGE_PATHS, read_page

from .conftest import Running, as_it_is

PAGE = files("tallyformer.server").joinpath("page")
FILES = {name: file for name, file in read_page(PAGE).items() if name != INDEX}


@pytest.mark.parametrize("path", ["/", "/c/abc", "/c/a/b", "/compare", "/info", "/?q=1"])
def test_the_pages_are_the_index(http: httpx2.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.content == PAGE.joinpath("index.html").read_bytes()


def test_the_page_and_its_files_need_no_key_and_the_api_does(keyed: Running) -> None:
    with keyed.client() as http:
        for name in FILES:
            assert http.get(f"/{name}").status_code == 200, name
        assert http.get("/").status_code == 200
        assert http.get("/v1/models").status_code == 401


def test_every_file_is_sent_under_the_policy(http: httpx2.Client) -> None:
    for name in ("", *FILES):
        headers = http.get(f"/{name}").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_files_are_compressed_for_those_who_take_it(http: httpx2.Client) -> None:
    for name, file in FILES.items():
        assert gzip.decompress(file.packed) == file.content
        for taken in ("gzip", "identity"):
            answer = http.get(f"/{name}", headers={"accept-encoding": taken})
            assert answer.headers.get("content-encoding", "identity") == taken
            assert answer.content == file.content
            assert "accept-encoding" in answer.headers["vary"].lower()


def test_assets_are_kept_and_named_by_their_content(http: httpx2.Client) -> None:
    for name in FILES:
        kept = "immutable" in http.get(f"/{name}").headers["cache-control"]
        assert kept == name.startswith("assets/")


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/..%2fapp.py",
        "/assets/%2e%2e/%2e%2e/app.py",
        "/assets//etc/passwd",
        "/assets/..\\app.py",
        "/assets/",
        "/assets",
        "/index.html",
        "/first.js/",
        "/assets/index.html%00",
        "/unknown",
    ],
)
def test_no_other_path_leads_to_a_file(served: Running, path: str) -> None:
    status, body = as_it_is(served, path)
    assert status in (400, 404), path
    assert b"import" not in body and json.loads(body)["error"]["message"]


def test_the_page_hides_no_error_of_the_api(http: httpx2.Client) -> None:
    assert http.get("/v1/chat/completions").status_code == 405
    assert http.get("/v1/nothing").json()["error"]
    assert http.post("/", json={}).status_code == 405
    assert PAGE_PATHS.isdisjoint(http.get("/openapi.json").json()["paths"])
