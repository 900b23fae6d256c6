"""The examples for systemd, nginx and Caddy: valid, and every event is passed on at once."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from ..server.conftest import until
from .conftest import ASKED, PATIENCE, ROOT, free_port
from .paced import EVENTS

EXAMPLES = ROOT / "deploy" / "examples"
NAME = "chat.example.com"


@contextlib.contextmanager
def program(*words: object) -> Iterator[None]:
    process = subprocess.Popen(list(map(str, words)))
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextlib.contextmanager
def paced() -> Iterator[int]:
    port = free_port()
    with program(sys.executable, ROOT / "tests/deploy/paced.py", "127.0.0.1", port):
        until(lambda: _answers(f"http://127.0.0.1:{port}/"))
        yield port


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, verify=_anybody(), timeout=PATIENCE).status_code == 200
    except httpx2.TransportError:
        return False


def _anybody() -> ssl.SSLContext:
    """The certificate of a test is nobody's."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def one_by_one(url: str) -> list[str]:
    """Events, of which the next is sent when the one before has been heard."""
    heard = []
    headers = {"host": NAME}
    with (
        httpx2.Client(verify=_anybody(), timeout=PATIENCE, headers=headers) as http,
        http.stream("POST", url + "/v1/chat/completions", json=ASKED) as answer,
    ):
        for line in answer.iter_lines():
            if line:
                heard.append(line)
                http.get(f"{url}/heard/{line.removeprefix('data: ')}")
    return heard


EXPECTED = [f"data: {number}" for number in range(EVENTS)]


def test_the_unit_is_valid(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "tallyformer.service"
    text = (EXAMPLES / unit.name).read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/tallyformer/bin/tallyformer", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nginx_passes_events_one_by_one(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    files = ["-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}"]
    subprocess.run([*words, *files], check=True, capture_output=True)
    port = free_port()
    with paced() as behind:
        site = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8")
        site = site.replace("listen 443", f"listen 127.0.0.1:{port}")
        site = site.replace("127.0.0.1:8080", f"127.0.0.1:{behind}")
        site = site.replace(f"/etc/ssl/{NAME}", str(tmp_path))
        temporary = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = tmp_path / "nginx.conf"
        whole.write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {temporary}\n{site} }}\n"
        )
        with program("nginx", "-c", whole, "-e", "stderr"):
            until(lambda: _answers(f"https://127.0.0.1:{port}/"))
            assert one_by_one(f"https://127.0.0.1:{port}") == EXPECTED


def test_caddy_passes_events_one_by_one(tmp_path: Path) -> None:
    if shutil.which("caddy") is None:
        pytest.skip("caddy is not installed")
    port = free_port()
    with paced() as behind:
        site = (EXAMPLES / "Caddyfile").read_text(encoding="utf-8")
        subprocess.run(
            ["caddy", "validate", "--adapter", "caddyfile", "--config", EXAMPLES / "Caddyfile"],
            check=True,
            capture_output=True,
        )
        # Here there is no name to fetch a certificate for.
        site = site.replace(f"{NAME} {{", f"http://:{port} {{")
        file = tmp_path / "Caddyfile"
        file.write_text(
            "{\n\tadmin off\n\tauto_https off\n}\n"
            + site.replace("127.0.0.1:8080", f"127.0.0.1:{behind}")
        )
        with program("caddy", "run", "--adapter", "caddyfile", "--config", file):
            until(lambda: _answers(f"http://127.0.0.1:{port}/"))
            assert one_by_one(f"http://127.0.0.1:{port}") == EXPECTED
