"""A folder says how it wants to be sampled; what the caller says wins."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tallyformer.cli.generate import generate
from tallyformer.errors import ArtifactError
from tallyformer.inference.llm import LLM
from tallyformer.inference.outputs import Piece, without_first_space
from tallyformer.inference.sampling_params import SamplingParams

QUESTION = [{"role": "user", "content": "What is profit?"}]


@pytest.fixture
def folder(tally_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tally_folder, tmp_path / "model"))


def _says(folder: Path, **changes: Any) -> LLM:
    file = folder / "generation_config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, **changes}), encoding="utf-8")
    return LLM.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("says", "wanted"),
    [
        ({}, {}),
        ({"do_sample": False}, {"temperature": 0}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0}),
        ({"do_sample": True}, {}),
        ({"do_sample": True, "temperature": 0.7, "top_k": 9}, {"temperature": 0.7, "top_k": 9}),
        (
            {"do_sample": True, "top_p": 0.8, "min_p": 0.1, "max_new_tokens": 7},
            {"top_p": 0.8, "min_p": 0.1, "max_tokens": 7},
        ),
    ],
)
def test_settings_of_transformers_become_ours(
    says: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path
) -> None:
    assert _says(folder, **says).default_params == SamplingParams(**wanted)


def test_a_setting_that_cannot_be_followed_names_its_file(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"generation_config.json: top_p: must be") as caught:
        _says(folder, do_sample=True, top_p=7.0)
    assert "\n" not in str(caught.value)


HARMLESS = ("object", "nan", "surrogate", "large-number")
"""Objects that give none of the settings."""


def test_a_damaged_settings_file_is_refused_and_not_passed_over(
    shapes_of_damage: Mapping[str, Callable[[Path], None]], tally_folder: Path, tmp_path: Path
) -> None:
    for name, damage in shapes_of_damage.items():
        folder = Path(shutil.copytree(tally_folder, tmp_path / name))
        damage(folder / "generation_config.json")
        if name in HARMLESS:
            assert LLM.from_pretrained(folder, device="cpu").default_params == SamplingParams()
            continue
        with pytest.raises(ArtifactError, match=r"generation_config\.json: .*fetch the file") as e:
            LLM.from_pretrained(folder, device="cpu")
        assert "\n" not in str(e.value), name


@pytest.mark.parametrize(
    "says",
    [
        {"do_sample": "yes"},
        {"do_sample": 1},
        {"max_new_tokens": "ten"},
        {"max_new_tokens": 0},
        {"eos_token_id": "x"},
        {"eos_token_id": [1, None]},
        {"eos_token_id": {}},
        {"pad_token_id": []},
        {"pad_token_id": True},
        {"do_sample": True, "temperature": "hot"},
        {"do_sample": True, "top_k": 2.5},
    ],
)
def test_a_value_of_the_wrong_type_is_refused(says: Mapping[str, Any], folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"generation_config\.json: ") as caught:
        _says(folder, **says)
    assert "\n" not in str(caught.value)


def test_a_folder_without_settings_is_in_order(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert LLM.from_pretrained(folder, device="cpu").default_params == SamplingParams()


def test_every_way_to_ask_follows_the_folder(folder: Path) -> None:
    llm = _says(folder, do_sample=False, max_new_tokens=9)
    said = SamplingParams(temperature=0, max_tokens=9)
    assert llm.generate("A bond") == llm.generate("A bond", said)
    assert list(llm.stream("A bond")) == list(llm.stream("A bond", said))
    assert llm.chat(QUESTION) == llm.chat(QUESTION, said)
    assert list(llm.stream_chat(QUESTION)) == list(llm.stream_chat(QUESTION, said))


def test_params_that_are_given_are_taken_whole(folder: Path) -> None:
    llm = _says(folder, do_sample=False, max_new_tokens=9)
    own = SamplingParams(seed=3, max_tokens=30, ignore_eos=True)
    free = _says(folder, do_sample=None, max_new_tokens=None)
    assert llm.generate("A bond", own) == free.generate("A bond", own)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], {}),
        (["--max-tokens", "3"], {"max_tokens": 3}),
        (["--temperature", "1", "--seed", "5"], {"temperature": 1, "seed": 5}),
        (["--temperature", "0"], {"temperature": 0}),
        (["--ignore-eos", "--stop", "a"], {"ignore_eos": True, "stop": ["a"]}),
    ],
)
def test_an_option_changes_its_setting_alone(
    options: list[str], changes: Mapping[str, Any], folder: Path
) -> None:
    llm = _says(folder, do_sample=True, temperature=1e-4, top_k=3, max_new_tokens=9)
    params = dataclasses.replace(llm.default_params, **changes)
    command = ["--model", str(folder), "--device", "cpu", "--prompt", "A bond"]
    done = CliRunner().invoke(generate, [*command, *options])
    assert done.exit_code == 0, done.output
    assert done.stdout == llm.generate("A bond", params)[0].text + "\n"


def test_an_answer_in_a_chat_has_no_first_space_and_a_continuation_keeps_it(folder: Path) -> None:
    llm = LLM.from_pretrained(folder, device="cpu")
    begun = 0
    for seed in range(12):
        params = SamplingParams(seed=seed, max_tokens=6)
        output = llm.chat(QUESTION, params)
        verbatim = llm.generate(llm.chat_prompt(QUESTION), llm.chat_params(params))[0]
        begun += verbatim.text[:1].isspace()
        assert output == dataclasses.replace(verbatim, text=verbatim.text.lstrip())
        pieces = list(llm.stream_chat(QUESTION, params))
        assert "".join(piece.text for piece in pieces) == output.text
        assert [i for piece in pieces for i in piece.token_ids] == output.token_ids
        assert pieces[-1].finish_reason == output.finish_reason
    assert begun, "no answer began with a space"


def test_spaces_over_several_pieces_are_all_left_out() -> None:
    pieces = [
        Piece(text=" ", token_ids=[1]),
        Piece(text="\n a ", token_ids=[2]),
        Piece(text=" b", token_ids=[3], finish_reason="stop"),
    ]
    assert list(without_first_space(pieces)) == [
        Piece(text="a ", token_ids=[1, 2]),
        Piece(text=" b", token_ids=[3], finish_reason="stop"),
    ]
    nothing = [Piece(text="  ", token_ids=[1]), Piece(text="", token_ids=[2], finish_reason="stop")]
    assert list(without_first_space(nothing)) == [
        Piece(text="", token_ids=[1, 2], finish_reason="stop")
    ]
