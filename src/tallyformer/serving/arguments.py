"""What the Ray Serve application is told: the server's settings, and how it scales."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tallyformer.server.settings import ServerSettings

_PROXY = "Ray's proxies decide this. Leave it out, and give it in http_options of Ray Serve"
_REFUSED = {
    "host": _PROXY,
    "port": _PROXY,
    "keep_alive": _PROXY,
    "max_head_bytes": _PROXY,
    "max_connections": _PROXY,
    "reload": "Ray replaces replicas instead. Leave it out, and deploy again",
}
"""Settings that only `tallyformer serve` has a use for, and what there is instead."""
_Replicas = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0)]


class RayArguments(ServerSettings):
    """Every setting of the server that Ray's own proxies do not decide, and how it scales.

    On a command line lists have commas between their items, as
    `models=sft=/models/sft,pretrain=/models/pretrain`.
    """

    min_replicas: int = Field(1, ge=0, description="Replicas there are at least.")
    max_replicas: _Replicas = Field(4, description="Replicas there are at most.")
    answers_per_replica: float = Field(
        32.0,
        gt=0,
        description="Requests under way and waiting, by replica, that scaling aims at.",
    )
    most_answers_per_replica: _Replicas = Field(
        64, description="Requests that a replica has at once; the others wait in the proxies."
    )
    upscale_seconds: _Seconds = Field(10.0, description="Of more load before replicas are added.")
    downscale_seconds: _Seconds = Field(
        300.0, description="Of less load before replicas are taken away."
    )
    look_back_seconds: float = Field(
        20.0,
        gt=10,
        description="Seconds of load that scaling takes the mean of. Ray measures every 10.",
    )
    cores: float = Field(1.0, gt=0, description="Cores of one replica.")
    gpus: float = Field(0.0, ge=0, description="GPUs of one replica.")
    yield_seconds: _Seconds = Field(
        0.02,
        description="Seconds between two parts of a stream on their way to a proxy; the first "
        "token never waits.",
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_of_a_command_line(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        split = dict(values)
        for name in ("allowed_hosts", "allowed_origins"):
            if isinstance(split.get(name), str):
                split[name] = tuple(split[name].split(","))
        if isinstance(split.get("models"), str):
            split["models"] = _named(split["models"])
        return split

    @model_validator(mode="after")
    def _proxies_listen(self) -> Self:
        for name, instead in _REFUSED.items():
            if name in self.model_fields_set:
                raise ValueError(f"{name}: {instead}")
        if self.api_key_file is None and not self.allow_anonymous:
            raise ValueError(
                "api_key_file: Ray's proxies are reached by others and there are no keys. Give "
                "it, or allow_anonymous=true to serve everybody"
            )
        return self

    @model_validator(mode="after")
    def _replicas_have_an_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas: {self.min_replicas} is more than max_replicas "
                f"({self.max_replicas}). Give a smaller number"
            )
        if self.answers_per_replica > self.most_answers_per_replica:
            raise ValueError(
                f"answers_per_replica: {self.answers_per_replica:g} is more than "
                f"most_answers_per_replica ({self.most_answers_per_replica}), so that no replica "
                "would ever be added. Give a smaller number"
            )
        return self


def _named(models: str) -> dict[str, Path]:
    """Folders by name, of NAME=FOLDER,NAME=FOLDER."""
    folders: dict[str, Path] = {}
    for given in models.split(","):
        name, separator, folder = given.partition("=")
        if not separator or not folder:
            raise ValueError(f"models: {given!a} is not NAME=FOLDER. Write models=sft=/models/sft")
        if name in folders:
            raise ValueError(f"models: {name!a} is given twice. Name one otherwise")
        folders[name] = Path(folder)
    return folders
