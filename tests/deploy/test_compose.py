"""One command brings up the page and the API, closed to all that they do not need."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import httpx2
import pytest

from .conftest import ASKED, LONG, PATIENCE, ROOT, Deployment, deployed, inspected, needs_engine
from .paced import EVENTS

pytestmark = needs_engine
LIMITS = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
found = {name: int(status[name].split()[0], 16) for name in ("CapEff", "CapBnd", "NoNewPrivs")}
print(json.dumps({**found, "user": os.getuid(), "root": refused("/file"),
                  "data": refused("/data/file")}))
"""
LEFT_OUT = """
import json, os, shutil
def files(folder):
    return [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
def as_another(path):
    return not os.path.islink(path) and os.stat(path).st_mode & 0o6000
print(json.dumps({"pip": shutil.which("pip"), "setuid": list(filter(as_another, files("/usr"))),
                  "manuals": files("/usr/share/man") + files("/usr/share/locale")}))
"""
KEPT = """
import getpass, json, os, pathlib, platform, pwd, ssl, sys
from tallyformer.inference.native.available import library
print(json.dumps({
    "authorities": ssl.create_default_context().cert_store_stats()["x509_ca"] > 100,
    "user": pwd.getpwuid(os.getuid()).pw_name,
    "system": platform.freedesktop_os_release()["ID"],
    "packages": "Package: libc6" in pathlib.Path("/var/lib/dpkg/status").read_text(),
    "licenses": pathlib.Path("/usr/share/doc/libc6/copyright").is_file(),
    "encoding": sys.stdout.encoding,
    "library": library() is not None,
}))
"""


def test_a_new_user_sees_the_page_and_an_answer(deployment: Deployment) -> None:
    page = httpx2.get(deployment.page, timeout=PATIENCE)
    assert page.status_code == 200 and "<title>TallyFormer</title>" in page.text
    answer = deployment.ask()
    assert "prices" in answer.json()["choices"][0]["message"]["content"]
    docs = httpx2.get(deployment.api + "/docs", timeout=PATIENCE)
    assert docs.status_code == 200 and "/v1/chat/completions" in docs.text


def test_nginx_sends_the_page_as_the_api_does(deployment: Deployment) -> None:
    folder = ROOT / "src/tallyformer/server/page"
    assets = ["/" + str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    for path in ["/", "/c/some-conversation", "/compare", "/info", "/assets/none.js", *assets]:
        ours, theirs = (
            httpx2.get(base + path, timeout=PATIENCE) for base in (deployment.page, deployment.api)
        )
        assert (path, ours.status_code) == (path, theirs.status_code)
        assert ours.content == theirs.content
        of_its_own = {"date", "server", "connection", "content-length", "content-encoding", "vary"}
        expected = {k: v for k, v in theirs.headers.items() if k not in of_its_own}
        del expected["x-request-id"]
        assert {k: ours.headers.get(k) for k in expected} == expected, path
        assert ours.status_code == 404 or "accept-encoding" in ours.headers["vary"].lower()


def test_numbers_are_not_shown_to_everybody(deployment: Deployment) -> None:
    assert httpx2.get(deployment.page + "/metrics", timeout=PATIENCE).status_code == 404
    assert "tallyformer_slots" in httpx2.get(deployment.api + "/metrics", timeout=PATIENCE).text


@pytest.mark.parametrize(("service", "user"), [("api", "10001:10001"), ("web", "101:101")])
def test_a_container_can_do_nothing_that_it_does_not_need(
    deployment: Deployment, service: str, user: str
) -> None:
    [container] = deployment.containers(service)
    found = inspected(container)
    host = found["HostConfig"]
    assert found["Config"]["User"] == user
    assert host["ReadonlyRootfs"] and not host["Privileged"]
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert 0 < host["Memory"] <= 2 << 30 and 0 < host["PidsLimit"] <= 512


def test_the_api_sees_these_limits(deployment: Deployment) -> None:
    assert json.loads(deployment.run("api", LIMITS)) == {
        "CapEff": 0,
        "CapBnd": 0,
        "NoNewPrivs": 1,
        "user": 10001,
        "root": "Read-only file system",
        "data": None,
    }


def test_the_api_image_holds_neither_torch_nor_a_compiler(deployment: Deployment) -> None:
    program = "import shutil, importlib.util as i; print(i.find_spec('torch'), shutil.which('g++'))"
    assert deployment.run("api", program).split() == ["None", "None"]


def test_the_image_of_the_api_is_small() -> None:
    assert inspected("tallyformer-api")["Size"] <= 350_000_000


def test_the_image_of_the_page_is_small() -> None:
    base = inspected("nginx:1.28-alpine")["Size"]
    size = inspected("tallyformer-web")["Size"]
    assert size - base < 4_000_000
    if base > 56_000_000:
        pytest.skip("nginx's image is not the one on Alpine, but a larger stand-in")
    assert size <= 60_000_000


def test_what_a_server_never_reads_is_not_in_the_image_of_the_api(deployment: Deployment) -> None:
    assert json.loads(deployment.run("api", LEFT_OUT)) == {"pip": None, "setuid": [], "manuals": []}


def test_what_a_server_and_a_scanner_read_is_in_the_image_of_the_api(
    deployment: Deployment,
) -> None:
    assert json.loads(deployment.run("api", KEPT)) == {
        "authorities": True,
        "user": "tallyformer",
        "system": "debian",
        "packages": True,
        "licenses": True,
        "encoding": "utf-8",
        "library": True,
    }
    label = inspected("tallyformer-api")["Config"]["Labels"]["org.opencontainers.image.base.name"]
    assert label == "python:3.11-slim"


def test_errors_of_nginx_have_the_form_of_the_apis(deployment: Deployment) -> None:
    url = deployment.page + "/v1/chat/completions"
    long = httpx2.post(url, content=b" " * (3 << 20), timeout=PATIENCE)
    assert long.status_code == 413 and long.json()["error"]["code"]
    deployment.compose("stop", "api")
    away = deployment.ask()
    assert away.status_code == 503 and away.headers["retry-after"]
    assert away.json()["error"]["type"] == "server_error"
    assert httpx2.get(deployment.page, timeout=PATIENCE).status_code == 200
    deployment.up()
    assert deployment.ask().status_code == 200


def test_an_api_that_is_killed_in_mid_answer_ends_the_stream_and_comes_back(
    deployment: Deployment,
) -> None:
    [container] = deployment.containers("api")
    url = deployment.page + "/v1/chat/completions"
    body = {**LONG, "max_tokens": 200_000}
    with httpx2.stream("POST", url, json=body, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        before = list(itertools.islice(lines, 20))
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(lines)
    assert any('"content"' in line for line in before)
    deployment.up()
    assert "prices" in deployment.ask().json()["choices"][0]["message"]["content"]


def test_an_api_that_is_stopped_finishes_its_answers(deployment: Deployment) -> None:
    url = deployment.page + "/v1/chat/completions"
    with httpx2.stream("POST", url, json={**LONG, "max_tokens": 3000}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()
        next(lines)
        stopping = subprocess.Popen(
            ["docker", "stop", "--time", "60", *deployment.containers("api")],
            stdout=subprocess.DEVNULL,
        )
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert stopping.wait(PATIENCE) == 0
    [state] = [inspected(c)["State"] for c in _all(deployment, "api")]
    assert state["ExitCode"] == 0
    deployment.up()


def test_a_mounted_model_is_served_instead_of_the_one_in_the_image() -> None:
    with deployed(
        "compose.yaml", MODEL_FOLDER="./deploy", MODELS="mine=/model-mounted/model"
    ) as project:
        names = httpx2.get(project.page + "/v1/models", timeout=PATIENCE).json()["data"]
        assert [model["id"] for model in names] == ["mine"]


def test_a_model_folder_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    project = Deployment(("compose.yaml",), {"MODEL_FOLDER": str(missing)})
    try:
        with pytest.raises(AssertionError, match=str(missing)):
            project.compose("up", "--detach", "--no-build", "api")
    finally:
        project.compose("down", "--volumes")
    assert not missing.exists()


def test_why_it_does_not_start_is_in_the_log(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "config.json").touch(mode=0o600)
    with (
        pytest.raises(
            AssertionError, match=r"config\.json: .*ermission denied.*Allow it for this user"
        ),
        deployed("compose.yaml", MODEL_FOLDER=str(tmp_path)),
    ):
        pass


def test_without_a_key_nobody_is_answered_where_keys_are_asked_for(tmp_path: Path) -> None:
    made = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "tallyformer-api", "key", "alice"],
        check=True,
        capture_output=True,
        text=True,
    )
    keys = tmp_path / "keys.txt"
    keys.write_text(made.stderr)
    key = made.stdout.strip()
    with deployed("compose.yaml", "compose.keys.yaml", KEYS_FILE=str(keys)) as project:
        assert project.ask().status_code == 401
        assert project.ask(headers={"Authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize(
    "files",
    [
        ("compose.yaml", "compose.ci.yaml"),
        ("compose.yaml", "compose.gpu.yaml"),
        ("compose.train.yaml",),
    ],
    ids=["ci", "gpu", "train"],
)
def test_files_that_no_test_brings_up_are_valid(files: tuple[str, ...]) -> None:
    Deployment(files).compose("config", "--quiet")


def test_events_pass_one_by_one() -> None:
    with deployed("compose.yaml", "tests/deploy/paced.yaml") as project:
        url = project.page + "/v1/chat/completions"
        with httpx2.stream("POST", url, json=ASKED, timeout=PATIENCE) as answer:
            for number, line in enumerate(line for line in answer.iter_lines() if line):
                assert line == f"data: {number}"
                httpx2.get(f"{project.page}/heard/{number}", timeout=PATIENCE)
    assert number == EVENTS - 1


def _all(deployment: Deployment, service: str) -> list[str]:
    return deployment.compose("ps", "--all", "--quiet", service).split()
