"""The manifests are valid, as closed as they say, and name what the server really has."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tallyformer.cli.serve import serve
from tallyformer.server.ending import LAST_SECONDS
from tallyformer.server.keys import digest_of
from tallyformer.server.metrics import Metrics
from tallyformer.server.routes.health import OPEN_PATHS

from ..inference.conftest import tally_folder, tokenizer  # noqa: F401  (fixtures)
from ..server.conftest import PATIENCE, until
from ..server.test_process import process

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
DEFINITIONS = "_definitions.json"  # of the schemas, which the others refer to


class _Compose(yaml.SafeLoader):
    """YAML with compose's own tags."""


_Compose.add_multi_constructor("!", lambda loader, suffix, node: None)
LABELS = {"app.kubernetes.io/name": "tallyformer"}
METRICS = {
    family.name: family
    for family in Metrics(time.monotonic)._registry.collect()  # without a model there are no values
}


def manifests() -> list[Any]:
    """All, as kustomize is told of them."""
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((FOLDER / name).read_text())]


def of(name: str) -> dict[str, Any]:
    """Those of one name, by kind."""
    return {one["kind"]: one for one in ALL if one["metadata"]["name"] == name}


ALL = manifests()
KINDS, REDIS = of("tallyformer"), of("tallyformer-redis")
POD = KINDS["Deployment"]["spec"]["template"]["spec"]
(API,) = POD["containers"]
ENVIRONMENT = {one["name"]: one["value"] for one in API["env"]}


def test_every_file_of_the_folder_is_applied() -> None:
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {p.name for p in FOLDER.glob("*.yaml")} == {"kustomization.yaml", *named}


def test_the_manifests_fit_the_schemas_of_kubernetes() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for one in ALL:
        for version in ("1.32", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(one, version, strict=True)


@pytest.fixture(scope="module", params=["1.32.0", "latest"])
def kubeconform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """The program with the schemas of one version, which it would load from the internet."""
    if not shutil.which("kubeconform"):
        pytest.skip("needs kubeconform")
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    latest = kubernetes_validate.latest_version()
    version = latest if request.param == "latest" else request.param
    folder = tmp_path_factory.mktemp("schemas")
    shipped = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    for file in (shipped / f"v{version}-local-strict").iterdir():
        # They name each other by addresses of Kubernetes' site; here they are side by side.
        schema = json.loads(file.read_text().replace("/api/_definitions.json#", f"{DEFINITIONS}#"))
        schema.pop("$id", None)
        (folder / file.name).write_text(json.dumps(schema))

    def checked(*words: str, given: str | None = None) -> dict[str, Any]:
        at = str(folder / "{{.ResourceKind}}{{.KindSuffix}}.json")
        done = subprocess.run(
            [
                "kubeconform",
                "-strict",
                "-summary",
                "-output",
                "json",
                "-schema-location",
                at,
                *words,
            ],
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return dict(json.loads(done.stdout))

    return checked


def test_kubeconform_finds_nothing(kubeconform: Callable[..., dict[str, Any]]) -> None:
    found = kubeconform("-skip", "Kustomization", str(FOLDER))
    assert found["summary"] == {"valid": len(ALL), "invalid": 0, "errors": 0, "skipped": 1}, found


def test_kubeconform_would_find_a_wrong_key(kubeconform: Callable[..., dict[str, Any]]) -> None:
    (part,) = API["ports"]
    for wrong in ({**part, "hostport": 1}, {**part, "containerPort": "http"}):
        changed = copy.deepcopy(KINDS["Deployment"])
        changed["spec"]["template"]["spec"]["containers"][0]["ports"] = [wrong]
        found = kubeconform(given=yaml.safe_dump(changed))
        assert found["summary"]["invalid"] == 1, found


def test_kustomize_builds_them() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True
    )
    found = list(yaml.safe_load_all(built.stdout))
    kinds = sorted((one["kind"], one["metadata"]["name"]) for one in found)
    assert kinds == sorted((one["kind"], one["metadata"]["name"]) for one in ALL)
    part = {"app.kubernetes.io/part-of": "tallyformer"}
    assert all(one["metadata"]["labels"].items() >= part.items() for one in found)
    images = {
        container["image"]
        for one in found
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert all(":" in image for image in images)
    names = {one["metadata"]["namespace"] for one in found if one["kind"] != "Namespace"}
    assert names == {"tallyformer"}


@pytest.mark.parametrize("kinds", [KINDS, REDIS], ids=["api", "redis"])
def test_a_pod_may_do_no_more_than_it_needs(kinds: dict[str, Any]) -> None:
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


def test_the_engine_starts_as_many_threads_as_the_limit_grants() -> None:
    resources = API["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]


def test_replicas_find_the_redis_that_only_they_may_ask() -> None:
    host, port = REDIS["Service"]["metadata"]["name"], REDIS["Service"]["spec"]["ports"][0]["port"]
    for name in ("TALLYFORMER_ANSWER_STORAGE", "TALLYFORMER_RATE_LIMIT_STORAGE"):
        assert ENVIRONMENT[name] == f"redis://{host}:{port}/0"
    assert "sessionAffinity" not in KINDS["Service"]["spec"]
    labels = REDIS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    policy = REDIS["NetworkPolicy"]["spec"]
    assert labels != LABELS
    selectors = (
        REDIS["Deployment"]["spec"]["selector"]["matchLabels"],
        REDIS["Service"]["spec"]["selector"],
        policy["podSelector"]["matchLabels"],
    )
    assert all(selector == labels for selector in selectors)
    ((asks,),) = [rule["from"] for rule in policy["ingress"]]
    assert asks == {"podSelector": {"matchLabels": LABELS}} and policy["egress"] == []
    asked = [p["port"] for rule in KINDS["NetworkPolicy"]["spec"]["egress"] for p in rule["ports"]]
    assert port in asked


def test_redis_is_that_of_compose_with_more_memory() -> None:
    compose = yaml.load((ROOT / "compose.scale.yaml").read_text(), Loader=_Compose)
    ours, theirs = compose["services"]["redis"], REDIS["Deployment"]["spec"]["template"]["spec"]
    (container,) = theirs["containers"]
    assert container["command"] == ours["entrypoint"]
    memory = container["args"].index("--maxmemory") + 1
    expected = [*ours["command"]]
    expected[memory] = container["args"][memory]
    assert container["args"] == expected
    of_pod = theirs["securityContext"]
    assert ours["user"] == f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"
    tags = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["images"]
    assert f"redis:{tags[-1]['newTag']}" in ours["image"]


def test_every_selector_finds_the_pods() -> None:
    labels = KINDS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        KINDS["Deployment"]["spec"]["selector"]["matchLabels"],
        KINDS["Service"]["spec"]["selector"],
        KINDS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        KINDS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(c["labelSelector"]["matchLabels"] for c in POD["topologySpreadConstraints"]),
    ]
    assert all(selector == LABELS == labels for selector in selectors)
    target = KINDS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = KINDS["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    assert POD["serviceAccountName"] == KINDS["ServiceAccount"]["metadata"]["name"]


def test_ports_and_paths_are_those_of_the_server() -> None:
    ports = {port["name"]: port["containerPort"] for port in API["ports"]}
    assert str(ports["http"]) == ENVIRONMENT["TALLYFORMER_PORT"]
    probes = [API[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert all(probe["port"] == "http" and probe["path"] in OPEN_PATHS for probe in probes)
    assert [port["targetPort"] for port in KINDS["Service"]["spec"]["ports"]] == ["http"]
    (ingress,) = KINDS["NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == ["http"]


def test_a_pod_is_killed_only_after_the_server_has_drained() -> None:
    drains = (
        API["lifecycle"]["preStop"]["sleep"]["seconds"]
        + float(ENVIRONMENT["TALLYFORMER_SHUTDOWN_GRACE"])
        + LAST_SECONDS
    )
    assert drains < POD["terminationGracePeriodSeconds"]


def test_what_is_mounted_is_where_the_variables_say() -> None:
    mounts = {one["name"]: one["mountPath"] for one in API["volumeMounts"]}
    assert {volume["name"] for volume in POD["volumes"]} == set(mounts)
    assert Path(ENVIRONMENT["TALLYFORMER_API_KEY_FILE"]).parent == Path(mounts["keys"])


def test_variables_are_options_of_serve() -> None:
    known = {parameter.envvar for parameter in serve.params}
    assert set(ENVIRONMENT) <= known


def test_scaling_goes_by_numbers_that_the_server_has() -> None:
    asked = {
        m["pods"]["metric"]["name"] for m in KINDS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    }
    assert asked <= METRICS.keys()
    adapter = (ROOT / "deploy/monitoring/prometheus-adapter.yaml").read_text()
    (rule,) = yaml.safe_load(adapter)["rules"]["custom"]
    assert json.dumps("tallyformer_(running|waiting)_answers") in rule["seriesQuery"]
    assert asked == {"tallyformer_running_answers", "tallyformer_waiting_answers"}


def test_the_server_starts_with_the_variables_of_a_pod(
    tally_folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice sha256:{digest_of('tf-a-key')}\n")
    own = {
        "TALLYFORMER_MODEL": f"sft={tally_folder}",
        "TALLYFORMER_API_KEY_FILE": str(keys),
        "TALLYFORMER_PORT": "0",
    }
    with process(**{**ENVIRONMENT, **own}) as (_, url):
        at = "http://127.0.0.1:" + url.rpartition(":")[2]
        paths = {API[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")}
        until(
            lambda: all(
                httpx2.get(at + path, timeout=PATIENCE).status_code == 200 for path in paths
            )
        )
        hosts = ENVIRONMENT["TALLYFORMER_ALLOWED_HOST"].split(",")
        for host, status in [*((h, 401) for h in hosts), ("other.example", 403)]:
            answer = httpx2.get(at + "/v1/models", headers={"host": host}, timeout=PATIENCE)
            assert answer.status_code == status
