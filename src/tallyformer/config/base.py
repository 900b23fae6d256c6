"""The base class of every recipe section: frozen, nothing unknown, every number finite."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen recipe section. An unknown key is an error, and so is an infinite number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
