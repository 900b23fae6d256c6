"""What the Ray Serve application is told, from a command line or a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tallyformer.server.settings import ServerSettings
from tallyformer.serving.arguments import RayArguments

ROOT = Path(__file__).parents[2]
OPEN: dict[str, Any] = {"models": {"sft": "/models/sft"}, "allow_anonymous": True}


def test_the_words_of_a_command_line_are_the_values_of_a_file() -> None:
    words = RayArguments.model_validate(
        {
            "models": "sft=/models/sft,pretrain=/models/a=b",
            "allow_anonymous": "true",
            "allowed_hosts": "a.example,b.example",
            "max_replicas": "7",
            "cores": "0.5",
        }
    )
    values = RayArguments.model_validate(
        {
            "models": {"sft": "/models/sft", "pretrain": "/models/a=b"},
            "allow_anonymous": True,
            "allowed_hosts": ["a.example", "b.example"],
            "max_replicas": 7,
            "cores": 0.5,
        }
    )
    assert words == values
    assert words.models["pretrain"] == Path("/models/a=b")


def test_every_setting_of_the_server_is_an_argument() -> None:
    assert set(ServerSettings.model_fields) <= set(RayArguments.model_fields)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"allow_anonymous": False}, "api_key_file: Ray's proxies are reached by others"),
        ({"port": 9000}, "port: Ray's proxies decide this"),
        ({"host": "0.0.0.0"}, "host: Ray's proxies decide this"),
        ({"keep_alive": 5}, "keep_alive: Ray's proxies decide this"),
        ({"max_head_bytes": 9000}, "max_head_bytes: Ray's proxies decide this"),
        ({"max_connections": 9}, "max_connections: Ray's proxies decide this"),
        ({"reload": True}, "reload: Ray replaces replicas instead"),
        ({"models": "/models/sft"}, "is not NAME=FOLDER"),
        ({"models": "sft="}, "is not NAME=FOLDER"),
        ({"models": "a=/b,a=/c"}, "models: 'a' is given twice"),
        ({"min_replicas": 5}, "min_replicas: 5 is more than max_replicas (4)"),
        ({"answers_per_replica": 65}, "so that no replica would ever be added"),
        ({"replicas": 2}, "Extra inputs are not permitted"),
    ],
)
def test_what_would_be_ignored_or_open_to_all_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        RayArguments.model_validate({**OPEN, **wrong})
    assert said in str(refused.value)


def test_a_setting_that_only_the_command_reads_is_refused() -> None:
    """Otherwise it would be accepted and ignored."""
    package = ROOT / "src" / "tallyformer"
    files = [
        f for f in (package / "server").rglob("*.py") if f.name not in ("run.py", "settings.py")
    ]
    text = "".join(f.read_text() for f in [*files, package / "serving" / "ray_app.py"])
    read = set(re.findall(r"\b_?(?:settings|arguments)\.(\w+)", text))
    refused = {
        name
        for name, field in ServerSettings.model_fields.items()
        if name not in OPEN and not _taken({**OPEN, name: field.default})
    }
    assert set(ServerSettings.model_fields) - read - {"allow_anonymous"} == refused


def _taken(values: dict[str, Any]) -> bool:
    try:
        RayArguments.model_validate(values)
    except ValidationError:
        return False
    return True


def test_the_file_that_is_shipped_is_taken() -> None:
    found = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    (application,) = found["applications"]
    arguments = RayArguments.model_validate(application["args"])
    module, _, name = application["import_path"].partition(":")
    assert f"def {name}(" in (ROOT / "src" / (module.replace(".", "/") + ".py")).read_text()
    assert found["http_options"]["request_timeout_s"] > arguments.request_timeout
