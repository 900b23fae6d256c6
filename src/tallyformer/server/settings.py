"""All settings of the server, in one frozen class. The command's options are made from it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tallyformer.errors import UsageError
from tallyformer.monitor.runs import is_a_run

_HIDDEN = frozenset({"answer_storage", "api_key_file", "feedback", "rate_limit_storage"})
_SEVERAL: tuple[Any, ...] = (tuple[str, ...], dict[str, Path])
_Count = Annotated[int, Field(ge=1)]
_YEAR = 366 * 24 * 3600
_Seconds = Annotated[float, Field(gt=0, le=_YEAR)]
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[\w.-]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[\w.-]{1,253}", re.ASCII)


class ServerSettings(BaseModel):
    """What a server is told at its start. Every field is an option of `tallyformer serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    models: dict[str, Path] = Field(
        {}, description="A model to serve: its name and its folder. Repeatable."
    )
    runs: Path | None = Field(
        None, description="A folder of training runs to show at /runs. Default: none."
    )
    dtype: str | None = Field(
        None, description="Of the weights, as for `tallyformer chat`. Default: as they were saved."
    )
    device: str | None = Field(None, description="Default: the GPU if there is one.")
    runner: str | None = Field(
        None,
        description="What computes the models, native or torch. Default: native on a CPU where it "
        "can, else torch.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_key_file: Path | None = Field(
        None, description="File of hashed API keys, made by `tallyformer key`. Default: no keys."
    )
    allow_anonymous: bool = Field(
        False, description="Without keys, listen on an address that others reach."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="A host name that requests may name besides localhost and IP addresses; "
        "* for any. Repeatable.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="A web page's origin that may call the API, as http://localhost:5173."
    )
    max_body_bytes: _Count = Field(1 << 20, description="Longest body of a request, in bytes.")
    max_head_bytes: int = Field(
        32 << 10, ge=1024, description="Longest head of a request, in bytes."
    )
    receive_timeout: _Seconds = Field(
        30.0, description="Seconds in which a request's head, and then its body, must arrive."
    )
    keep_alive: _Seconds = Field(
        75.0, description="Seconds that an idle connection is kept for its next request."
    )
    max_connections: _Count = Field(
        4096,
        description="Connections at once, if the system allows as many open files; past it the one "
        "that has waited longest for a request is closed.",
    )
    max_waiting: int = Field(
        256, ge=0, description="Answers that may wait for a model; more are refused with 429."
    )
    max_answer_bytes: int = Field(
        256 << 20,
        ge=1 << 16,
        description="Memory for what is made of answers and not sent yet, in bytes, and a quarter "
        "of it for streams that can be joined again; past it the largest answer ends.",
    )
    requests_per_minute: _Count | None = Field(
        None,
        description="Requests for answers that a key may make in a minute, and as many others that "
        "count tokens, show templates or rate. Default: any number.",
    )
    tokens_per_minute: _Count | None = Field(
        None,
        description="Tokens of prompts and longest answers that a key may ask for in a minute. "
        "Default: any number.",
    )
    requests_at_once: _Count | None = Field(
        None,
        description="Requests for answers that a key may have at once, and as many others. "
        "Default: any number.",
    )
    rate_limit_storage: str = Field(
        "memory://",
        description="Where the limits are counted: memory://, or redis://HOST:PORT for several "
        "servers together.",
    )
    request_timeout: _Seconds = Field(
        600.0, description="Seconds that an answer may take, waiting included."
    )
    stream_keep_alive: _Seconds = Field(
        10.0, description="Seconds without a token after which a stream sends a comment."
    )
    feedback: str | None = Field(
        None,
        description="Database for rated answers, as sqlite:///feedback.db. Default: none are kept.",
    )
    answer_storage: str = Field(
        "memory://",
        description="Where streams are kept to be joined again, and answers to be rated: "
        "memory://, or redis://HOST:PORT for several servers together.",
    )
    rejoin_seconds: _Seconds = Field(
        120.0, description="Seconds that a stream waits for a client to join it again."
    )
    shutdown_grace: float = Field(
        30.0, ge=0, le=_YEAR, description="Seconds that running answers get after SIGTERM."
    )
    reload: bool = Field(
        False, description="For developers: begin again whenever the package's code is changed."
    )

    @field_validator("models")
    @classmethod
    def _names_can_be_sent(cls, models: dict[str, Path]) -> dict[str, Path]:
        for name in models:
            plain = name.isprintable() and name.isascii() and name == name.strip()
            if not plain or not 1 <= len(name) <= 100:
                raise ValueError(f"{name!a}: a model's name is 1 to 100 printable ASCII characters")
        return models

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        if not (_NAME.fullmatch(host) or _address(host.partition("%")[0])):
            raise ValueError(
                f"{host!a} is neither an address nor a name. Give one as 127.0.0.1, ::1 or "
                "localhost, and the port as --port"
            )
        return host.lower()

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if host != "*" and not _NAME.fullmatch(host):
                raise ValueError(
                    f"{host!a} is not a host name. Give each name without scheme and port, as "
                    "chat.example.com, or * for any"
                )
        return hosts

    @field_validator("runs")
    @classmethod
    def _is_of_runs(cls, runs: Path | None) -> Path | None:
        if runs is not None and not runs.is_dir():
            raise ValueError(f"{runs}: is not a folder. Give the one with the runs, or make it")
        if runs is not None and is_a_run(runs):
            around = runs.absolute().parent
            raise ValueError(f"{runs}: is one run. Give the folder around it: {around}")
        return runs

    @model_validator(mode="after")
    def _there_is_something(self) -> Self:
        if not self.models and self.runs is None:
            raise ValueError("--model: required. Give NAME=FOLDER, as sft=runs/quickstart/model")
        return self

    @model_validator(mode="after")
    def _nobody_gets_in(self) -> Self:
        if self.api_key_file is None and not self.allow_anonymous and not _is_loopback(self.host):
            raise ValueError(
                f"--host: {self.host} is reached by others and there are no keys. Give "
                "--api-key-file, or --allow-anonymous to serve everybody"
            )
        return self

    @model_validator(mode="after")
    def _origins_are_origins(self) -> Self:
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"--allowed-origin: {origin!a} is not an origin. Write scheme, host and port, "
                    "as http://localhost:5173"
                )
        return self

    @property
    def redacted(self) -> dict[str, Any]:
        """All settings as JSON has them, without what an attacker could use."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return {k: "(hidden)" if k in _HIDDEN and v else v for k, v in values.items()}


def server_settings(values: dict[str, Any]) -> ServerSettings:
    """Checked settings.

    Raises:
        UsageError: a value is out of range; the option is named.
    """
    try:
        return ServerSettings(**values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        message = problem["msg"].removeprefix("Value error, ").replace("Input should", "it must")
        field = str(problem["loc"][0]) if problem["loc"] else ""
        raise UsageError(f"{flag_of(field)}: {message}" if field else message) from None


def flag_of(field: str) -> str:
    """The option of a field; one that holds several is given once for each."""
    several = ServerSettings.model_fields[field].annotation in _SEVERAL
    return "--" + (field.removesuffix("s") if several else field).replace("_", "-")


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
