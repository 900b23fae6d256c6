"""Recipes of any shape: YAML 1.2's values, bounded size, one line for what is not a recipe."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.config import load_recipe
from tallyformer.config.plain_yaml import (
    MOST_BYTES,
    MOST_VALUES,
    read_plain_yaml,
    write_plain_yaml,
)
from tallyformer.errors import UsageError

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 40)
)
REFUSED = {
    "a bomb": (BOMB, "more than 20,000 values"),
    "a bomb of merges": (MERGE_BOMB, "more than 20,000 values"),
    "nested brackets": ("a: " + "[" * 500 + "]" * 500, "nested more than 40 levels"),
    "nested sections": ("a: " + "{a: " * 500 + "}" * 500, "nested more than 40 levels"),
    "brackets that are never closed": ("[" * 100_000, "nested more than 40 levels"),
    "deep aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)),
        "nested more than 40 levels",
    ),
    "many keys": ("".join(f"key{n}: 1\n" for n in range(60_000)), "more than 20,000 values"),
    "a large file": ("# " + "x" * MOST_BYTES, "larger than 1,048,576 bytes"),
    "a value in itself": ("a: &a [*a]", "contains itself"),
    "a key in itself": ("? &a [*a]\n: 1", "a key is a word"),
    "a list as a key": ("? [a, b]\n: 1", "a key is a word"),
    "a tab": ("name:\n\tx: 1", "not valid YAML"),
    "a NUL": ("name: a\0b", "not valid YAML"),
    "an object": ("name: !!python/object/apply:os.system [true]", "not a value that a recipe"),
    "a set": ("prepare: !!set {a, b}", "not a value that a recipe"),
    "bytes": ("name: !!binary aGVsbG8=", "not a value that a recipe"),
    "two documents": ("name: a\n---\nname: b", "not valid YAML"),
    "a number of 5000 digits": (f"seed: {'9' * 5000}", "not valid YAML"),
    "a date": ("name: 2024-01-02\nseed: 2024-01-02", "seed: must be a whole number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recipe_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, expected = REFUSED[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(path)) and len(message) < 3000
    assert message.count("\n") <= 21


@pytest.mark.parametrize("value", ["[" * 500, "[&a [x,x], *a", "{a: 1, a: 2}", "\0", "!!set {a}"])
def test_a_value_of_set_is_read_alike(value: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_recipe(Path("recipes/quickstart.yaml"), [f"evaluate.prompts={value}"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"name: caf\xe9", "not UTF-8 at byte 9. Save it as UTF-8"),
        ("name: a".encode("utf-16"), "not UTF-8 at byte 0"),
        (b"", "a recipe is made of keys"),
        (b"\xef\xbb\xbf", "a recipe is made of keys"),
    ],
)
def test_a_file_of_other_bytes_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=expected):
        load_recipe(path)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + Path("recipes/quickstart.yaml").read_bytes())
    assert load_recipe(path) == load_recipe(Path("recipes/quickstart.yaml"))


@pytest.mark.parametrize(
    ("place", "expected"),
    [("/dev/zero", "larger than"), ("/dev/null", "made of keys"), (".", "cannot be read")],
)
def test_what_is_no_file_is_refused(place: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load_recipe(Path(place))


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(Path("a\0b"))


def test_of_many_problems_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("".join(f"key{n}: 1\n" for n in range(5000)), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    assert "5,003 problems" in lines[0] and len(lines) == 22
    assert lines[-1] == "  - and 4,983 more"


def test_the_largest_file_that_is_read_needs_little_memory(tmp_path: Path) -> None:
    """1 GiB of address space, of which Python and its libraries have most."""
    path = tmp_path / "recipe.yaml"
    line = "k{}: " + "x" * 40 + "\n"
    path.write_text("".join(line.format(n) for n in range(MOST_VALUES // 2 - 1)), encoding="utf-8")
    assert path.stat().st_size < MOST_BYTES
    done = subprocess.run(
        [Path(sys.executable).with_name("tallyformer"), "config", "validate", "--recipe", path],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "more" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("", None),
        ("8e-4", 8e-4),
        ("1e4", 1e4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("50_000_000", 50_000_000),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("0123456789ab", "0123456789ab"),
        ('"1"', "1"),
        ("=", "="),
    ],
)
def test_words_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read_plain_yaml(text)
    assert found == value and type(found) is type(value)


def test_an_anchor_and_a_merge_are_copies() -> None:
    found = read_plain_yaml("a: &a {x: [1]}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert found == {"a": {"x": [1]}, "b": {"x": [1]}, "c": {"x": [1], "y": 2}}
    assert found["a"] is not found["b"] and found["a"]["x"] is not found["c"]["x"]


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
odd_words = st.sampled_from(["on", "8e-4", "1e3", "0o7", "~", "null", "1:30", "<<", "=", ".inf"])


@given(st.recursive(scalars | odd_words, lambda v: st.lists(v) | st.dictionaries(words, v)))
def test_what_is_written_is_read_back_equal(value: object) -> None:
    assert read_plain_yaml(write_plain_yaml(value)) == value


def test_yaml_errors_are_of_its_library() -> None:
    with pytest.raises(yaml.YAMLError):
        read_plain_yaml("a: [1")
