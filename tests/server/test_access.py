"""Who gets in: keys, hosts, origins."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from tallyformer.errors import UsageError
from tallyformer.inference.engine.engine import Engine
from tallyformer.server.guard import Guard, close_routes
from tallyformer.server.keys import ApiKeys, add_key, key_line, new_key
from tallyformer.server.middleware.access_log import JsonLines
from tallyformer.server.routes.docs import OPEN_DOCS
from tallyformer.server.routes.health import OPEN_PATHS
from tallyformer.server.routes.page import PAGE_PATHS
from tallyformer.server.run import LOGGERS
from tallyformer.server.settings import ServerSettings, server_settings

from .conftest import KEY, Running
from .test_errors import check_envelope

OPEN = OPEN_PATHS | OPEN_DOCS


def _routes(server: Running) -> list[Route]:
    routes = server.app.router.routes
    assert all(isinstance(route, Route) for route in routes)
    return list(routes)


def test_without_a_key_every_route_is_closed_but_those_declared_open(keyed: Running) -> None:
    routes = _routes(keyed)
    assert {route.path for route in routes} > OPEN_PATHS
    with keyed.client() as http:
        for route in routes:
            path = route.path.replace("{name:path}", "tiny").replace("{", "").replace("}", "")
            for method in route.methods or ():
                answer = http.request(method, path)
                if route.path in PAGE_PATHS:
                    assert answer.status_code != 401, path
                elif route.path in OPEN:
                    assert answer.status_code < 400, path
                elif method == "HEAD":
                    assert answer.status_code == 401, path
                else:
                    check_envelope(answer, 401)
                    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_route_that_is_added_behind_the_guards_back_is_noticed() -> None:
    with pytest.raises(AssertionError):
        close_routes([object()], None, set())


def test_all_guarded_routes_have_one_guard(keyed: Running) -> None:
    for route in _routes(keyed):
        assert isinstance(route.app, Guard) == (route.path not in OPEN | PAGE_PATHS)


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}],
)
def test_a_known_key_opens(keyed: Running, headers: dict[str, str]) -> None:
    with keyed.client(headers=headers) as http:
        assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["tiny"]


@pytest.mark.parametrize("value", ["", "Bearer", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer é"])
def test_what_is_not_a_known_key_does_not(keyed: Running, value: str) -> None:
    with keyed.client() as http:
        answer = http.get("/v1/models", headers=[(b"authorization", value.encode("latin-1"))])
        detail = check_envelope(answer, 401)
    assert KEY not in str(detail)


@pytest.mark.parametrize(
    "path",
    ["/v1/models/", "//v1/models", "/v1/%6dodels", "/health/../v1/models", "/v1/models?x=/health"],
)
def test_no_spelling_of_a_path_passes_the_guard(keyed: Running, path: str) -> None:
    with keyed.client() as http:
        assert http.get(path).status_code in (401, 404)


def test_a_foreign_host_is_refused_and_an_address_is_not(served: Running) -> None:
    with served.client() as http:
        for host in ("attacker.example", "localhost.attacker.example", "127.0.0.1.nip.io", ""):
            detail = check_envelope(http.get("/health", headers={"host": host}), 403)
            assert detail["type"] == "permission_error"
        for host in ("localhost", "localhost:1", "127.0.0.1:5", "[::1]:8", "192.168.0.9"):
            assert http.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://attacker.example", "null", "http://page.example.evil"])
def test_a_foreign_page_may_neither_ask_nor_call(http: httpx2.Client, origin: str) -> None:
    check_envelope(http.get("/v1/models", headers={"origin": origin}), 403)
    answer = http.options(
        "/v1/models", headers={"origin": origin, "access-control-request-method": "POST"}
    )
    check_envelope(answer, 403)
    assert "access-control-allow-origin" not in answer.headers


def test_a_servers_own_page_may_call(keyed: Running) -> None:
    with keyed.client() as http:
        check_envelope(http.get("/v1/models", headers={"origin": keyed.url}), 401)


def test_cors_stands_before_everything(http: httpx2.Client) -> None:
    page = "http://page.example"
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    preflight = http.options("/v1/chat/completions", headers={"origin": page, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == page
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    refused = http.get("/no/such/path", headers={"origin": page})
    check_envelope(refused, 404)
    assert refused.headers["access-control-allow-origin"] == page
    assert "x-request-id" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"method": "PUT"}, "method"),
        ({"method": "GET", "private-network": "true"}, "private-network"),
    ],
)
def test_a_refused_preflight_is_an_error_as_all_are(
    http: httpx2.Client, asked: dict[str, str], why: str
) -> None:
    headers = {f"access-control-request-{name}": value for name, value in asked.items()}
    answer = http.options("/health", headers={"origin": "http://page.example", **headers})
    assert check_envelope(answer, 400)["message"].endswith(why)
    assert answer.headers["access-control-allow-origin"] == "http://page.example"


def test_every_answer_has_a_request_id_and_a_usable_one_is_kept(http: httpx2.Client) -> None:
    assert (
        http.get("/health").headers["x-request-id"] != http.get("/health").headers["x-request-id"]
    )
    assert http.get("/x", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 65, "<script>"):
        assert http.get("/x", headers={"x-request-id": bad}).headers["x-request-id"] != bad


def test_the_log_says_who_and_what_but_neither_keys_nor_paths(
    keyed: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tallyformer.access")
    with keyed.client(headers={"Authorization": f"Bearer {KEY}"}) as http:
        http.get("/v1/models/tiny?secret=words")
        http.get("/private/words")
    lines = [JsonLines().format(r) for r in caplog.records if r.name == "tallyformer.access"]
    assert any('"/v1/models/{name:path}"' in line and '"alice"' in line for line in lines)
    assert KEY not in "".join(lines)
    assert "words" not in "".join(lines)


SAID = "hidden words"


def _logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that a server writes; the test's own client logs here too."""
    return "".join(JsonLines().format(r) for r in caplog.records if r.name in LOGGERS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"model": SAID}, 404),
        ({"temperature": SAID}, 400),
        ({"stop": [SAID] * 300}, 400),
        ({"messages": [{"role": SAID, "content": SAID}]}, 400),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": SAID}}}, 400),
        ({"guided_regex": f"({SAID}"}, 400),
        ({SAID: SAID}, 200),
    ],
)
def test_the_log_has_nothing_of_what_is_asked_and_answered(
    served: Running,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    status: int,
    stream: bool,
) -> None:
    body = {
        "messages": [{"role": "system", "content": SAID}, {"role": "user", "content": SAID}],
        "stop": [SAID],
        "user": SAID,
        "max_tokens": 8,
        "temperature": 0,
        "stream": stream,
    }
    caplog.set_level(logging.DEBUG)
    with served.client() as http:
        answer = http.post(f"/v1/chat/completions?q={SAID}", json={**body, **changes})
        assert answer.status_code == status, answer.text
        http.post("/tokenize", json={"prompt": SAID})
    lines = _logged(caplog)
    assert "/v1/chat/completions" in lines and "/tokenize" in lines
    assert "hidden" not in lines
    if status == 200 and not stream:
        assert answer.json()["choices"][0]["message"]["content"][:8] not in lines


def test_the_log_of_a_failure_has_its_place_and_not_its_words(
    served: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(engine: Engine) -> Any:
        raise ValueError(SAID)

    monkeypatch.setattr(Engine, "step", fails)
    with served.client() as http:
        body = {"messages": [{"role": "user", "content": SAID}]}
        check_envelope(http.post("/v1/chat/completions", json=body), 500)
        text = http.post("/v1/chat/completions", json={**body, "stream": True}).text
    assert '"code":' in text and SAID not in text
    lines = _logged(caplog)
    assert "ValueError" in lines and "test_access.py" in lines
    assert "hidden" not in lines


def test_a_file_of_keys_gives_each_key_its_owner(tmp_path: Path) -> None:
    mine, other = new_key(), new_key()
    assert mine != other
    file = tmp_path / "keys"
    file.write_text(f"# keys\n\n{key_line('me', mine)}  # mine\n{key_line('you', other)}\n")
    keys = ApiKeys.read(file)
    assert (keys.owner(mine), keys.owner(other), keys.owner("tf-x")) == ("me", "you", None)
    assert mine not in file.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no keys"),
        ("me tf-plain-key", "line 1 is not a name and sha256:HASH"),
        (f"{key_line('me', 'a')}\n{key_line('me', 'b')}", "line 2: me is there twice"),
        (f"{key_line('me', 'a')}\n{key_line('you', 'a')}", "line 2: another name has this key"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_bad_file_of_keys_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=said) as caught:
        ApiKeys.read(file)
    assert "\n" not in str(caught.value)


def test_a_file_of_keys_from_another_system_is_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf" + key_line("me", "a").encode() + b"\r\n")
    assert ApiKeys.read(file).owner("a") == "me"


def test_what_may_have_no_end_is_no_file_of_keys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="cannot be read as a file of keys"):
            ApiKeys.read(file)


def test_keys_are_added_to_a_file_so_that_it_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(key_line("me", "a"))  # without an end of line
    mine = add_key(file, "you")
    assert ApiKeys.read(file).owner(mine) == "you"
    before = file.read_text()
    with pytest.raises(UsageError, match="has a key of me already"):
        add_key(file, "me")
    assert file.read_text() == before
    with pytest.raises(UsageError, match="cannot be written"):
        add_key(tmp_path / "none" / "keys", "me")


def test_strangers_are_not_served_without_keys_unless_it_is_said(tmp_path: Path) -> None:
    models = {"tiny": tmp_path}
    with pytest.raises(UsageError, match="there are no keys"):
        server_settings({"models": models, "host": "0.0.0.0"})
    assert ServerSettings(models=models, host="0.0.0.0", allow_anonymous=True)
    for host in ("::1", "LOCALHOST", "127.0.0.2"):
        assert ServerSettings(models=models, host=host)


def test_settings_say_which_option_is_wrong(tmp_path: Path) -> None:
    for values, said in (
        ({"port": 70000}, "--port: "),
        ({"allowed_origins": ("page.example",)}, "--allowed-origin: "),
        ({"models": {"a\nb": tmp_path}}, "--model: "),
        ({"allowed_origins": ("http://a b",)}, "--allowed-origin: "),
        ({"models": {" a": tmp_path}}, "--model: "),
        ({"keep_alive": "soon"}, "--keep-alive: "),
        ({"shutdown_grace": 1e300}, "--shutdown-grace: it must be less than"),
        ({"receive_timeout": 0}, "--receive-timeout: it must be greater than 0"),
        *(
            ({"host": host}, "--host: .*neither an address nor a name")
            for host in ("", "unix:/x", "[::1]", "localhost:80", "http://localhost", "a b")
        ),
        *(
            ({"allowed_hosts": (host,)}, "--allowed-host: .*not a host name")
            for host in ("", "http://a", "a:80", "*.a")
        ),
        ({"runs": tmp_path / "none"}, "--run.*is not a folder"),
    ):
        with pytest.raises(UsageError, match=said):
            server_settings({"models": {"tiny": tmp_path}, **values})


def test_settings_are_printed_without_where_the_keys_are(tmp_path: Path) -> None:
    settings = ServerSettings(models={"tiny": tmp_path}, api_key_file=tmp_path / "keys")
    assert settings.redacted["api_key_file"] == "(hidden)"
