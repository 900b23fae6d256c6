"""A path with a mistake in it is not taken for a name on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallyformer.artifacts.hub_names import could_be_hub_name


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2-medium", "a/b.c_d"])
def test_names_of_the_hub_are_known(name: str) -> None:
    assert could_be_hub_name(name)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "./a",
        "../a",
        "~/a",
        "/a/b",
        "a/b/c",
        "a/",
        "/a",
        "a b",
        "a\\b",
        "runs/x",
        "ü/a",
        "a" * 97,
    ],
)
def test_paths_are_not_names(path: str) -> None:
    assert not could_be_hub_name(path)


def test_what_lies_in_a_folder_that_is_here_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert could_be_hub_name("mine/model")
    (tmp_path / "mine").mkdir()
    assert not could_be_hub_name("mine/model")
    assert could_be_hub_name("mine")
