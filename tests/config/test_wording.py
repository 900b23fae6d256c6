"""What is wrong with a recipe is said in a beginner's words: the place, and what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tallyformer.config import Recipe, check_recipe, load_recipe
from tallyformer.errors import ConfigError, UsageError

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "prepare": {"sources": [{"name": "texts", "paths": ["a.txt"]}]},
    "pretrain": {"steps": 1},
    "sft": {"steps": 1, "sources": [{"name": "own", "paths": ["a.jsonl"]}]},
    "distill": {"phases": [{"steps": 1}]},
    "teacher": {"source": "gpt2"},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return file


NO_YAML = {
    "a tab": ("name: a\npretrain:\n\tsteps: 1\n", 3, 1, "a tab stands in the indentation"),
    "no space after a colon": ("p:\n  steps:100\n  batch: 4\n", 3, 8, "line before has no value"),
    "no value": ("a: b\nc\nd: e\n", 2, 1, "write `key: value`, with a space after"),
    "an open quote": ("name: 'a\np: 1\n", 1, 7, "the quote that begins here is never closed"),
    "an open double quote": ('name: "a\np: 1\n', 1, 7, "the quote that begins here is never"),
    "an open bracket": ("x: [1, 2\ny: 3\n", 1, 4, "the bracket [ that begins here is never"),
    "an open brace": ("x: {a: 1\ny: 3\n", 1, 4, "the brace { that begins here is never closed"),
    "indented too far": ("p:\n  steps: 1\n   b: 2\n", 3, 5, "indented too far"),
    "indented too little": ("p:\n   steps: 1\n  b: 2\n", 3, 3, "indented otherwise than the keys"),
    "indented in the first line": (" name: a\nseed: 1\n", 2, 1, "otherwise than the first line"),
    "a colon in a text": ("name: a: b\n", 1, 8, "a colon and a space stand needs quotes"),
    "an alias of nothing": ("x: *.txt\n", 1, 4, "a text that begins with * needs quotes"),
    "a text with a percent sign": ("x: %a\n", 1, 4, "begins with this character needs quotes"),
    "a backslash": ('x: "C:\\data"\n', 1, 8, "use single ones"),
    "a quote in quotes": ("x: 'it's'\n", 1, 8, "write '' for a '"),
    "a list in the line of its key": ("x: - a\n", 1, 4, "a list begins on a line of its own"),
    "no space after a dash": ("s:\n- name: a\n -name: b\n", 3, 2, "a space after the - of a list"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, 1, "a recipe is one document"),
    "a NUL": ("a: 1\nb: \0\n", 2, 4, "U+0000 is not allowed"),
}


@pytest.mark.parametrize("name", NO_YAML)
def test_what_is_no_yaml_is_shown_with_its_place_and_a_hint(name: str, tmp_path: Path) -> None:
    text, line, column, hint = NO_YAML[name]
    file = tmp_path / "tiny.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: not valid YAML: line {line}, column {column}: "), said
    assert hint in said and "\n" not in said and "<unicode string>" not in said
    begins = text.split("\n")[line - 1].strip().split("\0")[0]
    assert begins in said.replace("\\'", "'"), "the line is shown"


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("prepare.sources.0.paths=book.txt", 'paths: must be a list: write ["book.txt"]'),
        ("prepare.sources.0.paths=3", "paths: must be a list: write [first, second]"),
        ("sft.lora.target_modules=query", 'must be a list: write ["query"]'),
        ("prepare.sources=book.txt", "sources: must be a list of sections: each begins on"),
        ("prepare.sources={name: a}", "sources: must be a list of sections: each begins on"),
        ("prepare.sources=[]", "sources: must have an item at least"),
        ("prepare.sources=[a.txt]", "sources.0: must be a section of keys with values; its keys"),
        ("pretrain=3", "pretrain: must be a section of keys with values; its keys are: epochs,"),
        ("pretrain='steps:100'", "pretrain: must be a section: write `steps: 100`, with a space"),
        ("pretrain.weights=[1]", "pretrain.weights: must be a section of keys with values"),
        ("pretrain.micro_batch='8'", "'8' is a text: write the number without quotes"),
        ("pretrain.optimizer.learning_rate='1e-3'", "'1e-3' is a text: write the number without"),
        ("pretrain.optimizer.betas=['0.9', 0.95]", "'0.9' is a text: write the number without"),
        ("pretrain.weights={texts: '1'}", "'1' is a text: write the number without quotes"),
        ("seed='7'", "'7' is a text: write the number without quotes"),
        ("pretrain.optimizer.betas=[0.9]", "betas.1: the list is too short"),
        ("pretrain.optimizer.betas=[0.9, 0.9, 0.9]", "betas: must have at most 2 items, not 3"),
        ("pretrain.micro_batch=1.5", "micro_batch: must be a whole number (got 1.5)"),
        ("pretrain.micro_batch=many", "micro_batch: must be a whole number (got 'many')"),
        ("prepare.shard_tokens=50M", "must be a whole number: write 50000000 (got '50M')"),
        ("prepare.validation_fraction=10%", "must be a number: write 0.1 (got '10%')"),
        ("pretrain.epochs=1,5", "must be a number: write 1.5 (got '1,5')"),
        ("pretrain.attend_across_documents=yes", "must be true or false (got 'yes')"),
        ("pretrain.attend_across_documents=1", "must be true or false (got 1)"),
        ("pretrain.attend_across_documents='true'", "must be true or false (got 'true')"),
        ("name=5", "name: must be a text: write it in quotes (got 5)"),
        ("name='a b'", "name: must be a name of letters, digits"),
        ("tokenizer.kind=trian", "must be 'pretrained' or 'train'; did you mean 'train'?"),
    ],
)
def test_a_value_of_the_wrong_kind_says_what_to_write(path: Path, override: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, ["pretrain.epochs=null", override])
    said = str(caught.value)
    assert hint in said and "\n" not in said, said
    for word in ("Input should", "tuple", "Tuple", "dictionary", "instance of", "parse"):
        assert word not in said


@pytest.mark.parametrize("text", [r"a\ud800b", r"a\0b"])
def test_a_text_in_a_list_must_be_one_that_a_file_can_hold(path: Path, text: str) -> None:
    for key in ("evaluate.prompts", "prepare.sources.0.paths", "sft.sources.0.context_fields"):
        with pytest.raises(ConfigError, match="a character that no file or path can hold"):
            load_recipe(path, [f'{key}=["{text}"]'])


def test_a_bad_item_does_not_make_its_list_too_short(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, ["prepare.sources.0.max_bytes=-1"])
    assert "max_bytes" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("written", ["1e-3", "1E-3", ".001", "0.001", "1.0e-3", "+1e-3", "0.00_1"])
def test_a_number_may_be_written_as_people_write_it(path: Path, written: str) -> None:
    recipe = load_recipe(path, [f"pretrain.optimizer.learning_rate={written}"])
    assert recipe.pretrain.optimizer.learning_rate == 1e-3


@pytest.mark.parametrize("written", ["100", "1e2", "100.0", "1_00", "0x64"])
def test_a_whole_number_may_too(path: Path, written: str) -> None:
    assert load_recipe(path, [f"pretrain.steps={written}"]).pretrain.steps == 100


def test_the_recipe_that_a_run_keeps_is_read_back(path: Path) -> None:
    """As the program writes it, and as Python's own values."""
    recipe = load_recipe(path)
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert check_recipe(recipe.model_dump(mode="json", exclude_none=True), "again") == recipe


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("name='a", "the quote that begins here is never closed"),
        ("prepare.sources.0.paths=[a", "the bracket [ that begins here is never closed"),
        ("prepare.sources.0.paths=*.txt", "a text that begins with * needs quotes"),
    ],
)
def test_an_override_that_is_no_yaml_gets_the_same_hints(
    path: Path, override: str, hint: str
) -> None:
    with pytest.raises(UsageError, match="the value is not valid YAML: line 1, column") as caught:
        load_recipe(path, [override])
    assert hint in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "holds"), [("", "nothing"), ("- a\n", "a list"), ("name:a\n", "one text")]
)
def test_a_file_without_keys_says_what_it_holds(text: str, holds: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"`key: value`.*this file holds {holds}$"):
        load_recipe(file)
