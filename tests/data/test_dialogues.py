"""Conversations of several turns as training rows, in every form that data sets have."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tallyformer.config.data import PairSource
from tallyformer.data.conversations import encode_pair
from tallyformer.data.pairs import Pair, PairSplit, read_pairs, split_pairs
from tallyformer.data.sources import pair_source
from tallyformer.errors import DataError
from tallyformer.tokenizer import Tokenizer

TURNS = ("What is a share?", "A unit of ownership.", "Why?", "It gives a vote.")


def messages(*turns: str, system: str = "") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": content} for n, content in enumerate(turns)]
    return [{"role": "system", "content": system}, *said] if system else said


def share_gpt(*turns: str, system: str = "") -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [
        {"from": names[m["role"]], "value": m["content"]} for m in messages(*turns, system=system)
    ]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> PairSource:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PairSource(name="s", paths=(name,))


def read(folder: Path, section: PairSource) -> tuple[list[Pair], dict[str, int]]:
    dropped: Counter[str] = Counter()
    source = pair_source(section, data_root=str(folder), seed=0)
    return list(read_pairs(source, section, dropped)), dict(dropped)


def split(folder: Path, rows: list[dict[str, Any]]) -> PairSplit:
    section = write(folder, rows)
    return split_pairs([section], data_root=str(folder), validation_fraction=0.3, seed=3)


def _columns(said: list[dict[str, str]]) -> dict[str, list[str]]:
    return {key: [message[key] for message in said] for key in said[0]}


FORMS: dict[str, dict[str, Any]] = {
    "messages": {"messages": messages(*TURNS, system="Be brief.")},
    "ShareGPT": {"conversations": share_gpt(*TURNS, system="Be brief.")},
    "messages under the other name": {"conversations": messages(*TURNS, system="Be brief.")},
    "with a prompt of its own": {
        "prompt": TURNS[0],
        "messages": messages(*TURNS, system="Be brief."),
    },
    "with a question that has no answer": {
        "messages": messages(*TURNS, "And then?", system="Be brief.")
    },
    "with more keys": {
        "id": 7,
        "messages": [{**m, "weight": 1} for m in messages(*TURNS, system="Be brief.")],
    },
    "with text parts": {
        "messages": [
            {**m, "content": [{"type": "text", "text": m["content"]}]}
            for m in messages(*TURNS, system="Be brief.")
        ]
    },
    "as JSON within JSON": {"messages": json.dumps(messages(*TURNS, system="Be brief."))},
    "as a dictionary of lists": {"messages": _columns(messages(*TURNS, system="Be brief."))},
    "roles in capitals": {
        "messages": [{**m, "role": m["role"].title()} for m in messages(*TURNS, system="Be brief.")]
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_conversation_is_read_as_it_is(tmp_path: Path, form: str) -> None:
    [pair], dropped = read(tmp_path, write(tmp_path, [FORMS[form]]))
    assert pair.turns == TURNS and pair.system == "Be brief." and not dropped


def test_of_two_answers_to_the_last_question_the_chosen_one_is_read(tmp_path: Path) -> None:
    *begun, answer = TURNS
    row = {"messages": messages(*begun), "chosen": f" {answer}\r\n", "rejected": "No."}
    [pair], dropped = read(tmp_path, write(tmp_path, [row]))
    assert pair.turns == TURNS and not dropped
    for other in (None, messages(*TURNS), 5):
        [pair], _ = read(tmp_path, write(tmp_path, [{**row, "chosen": other}]))
        assert pair.turns == TURNS[:2]
    [pair], _ = read(tmp_path, write(tmp_path, [{**row, "messages": messages(*TURNS)}]))
    assert pair.turns == TURNS
    _, dropped = read(tmp_path, write(tmp_path, [{**row, "chosen": " "}]))
    assert dropped == {"empty_response": 1}


@pytest.mark.parametrize("form", ["messages", "ShareGPT"])
def test_parquet_and_csv_hold_conversations_too(tmp_path: Path, form: str) -> None:
    [(field, value)] = FORMS[form].items()
    pq.write_table(pa.table({"id": [1], field: [value]}), tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", field], ["1", json.dumps(value)]])
    for name in ("rows.parquet", "rows.csv"):
        [pair], dropped = read(tmp_path, PairSource(name="s", paths=(name,)))
        assert pair.turns == TURNS and pair.system == "Be brief." and not dropped


def test_a_data_set_folder_holds_conversations_too(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set", [FORMS["ShareGPT"]] * 2, "train.jsonl")
    pairs, _ = read(tmp_path, PairSource(name="s", dataset="set"))
    assert [pair.turns for pair in pairs] == [TURNS, TURNS]


def test_pairs_and_conversations_may_stand_in_one_file(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b"}, {"messages": messages("c", "d", "e", "f")}]
    pairs, _ = read(tmp_path, write(tmp_path, rows))
    assert [pair.turns for pair in pairs] == [("a", "b"), ("c", "d", "e", "f")]


def test_a_named_field_is_the_one_that_is_read(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b", "chat": messages(*TURNS), "passage": "Read this."}]
    section = write(tmp_path, rows).model_copy(
        update={"messages_field": "chat", "context_fields": ("passage",)}
    )
    [pair], _ = read(tmp_path, section)
    assert pair.turns == (f"Read this.\n\n{TURNS[0]}", *TURNS[1:])
    with pytest.raises(
        ValueError, match="prompt_field is for paths or dataset without messages_field"
    ):
        PairSource(name="s", paths=("x.jsonl",), messages_field="chat", prompt_field="q")


DROPPED: dict[str, tuple[Any, str]] = {
    "nothing": ([], "no_answer"),
    "null": (None, "no_answer"),
    "no answer": (messages("a"), "no_answer"),
    "a system message alone": ([{"role": "system", "content": "x"}], "no_answer"),
    "two users": ([*messages("a"), *messages("a", "b")], "roles_out_of_turn"),
    "the assistant first": (messages("a", "b", "c", "d")[1:], "roles_out_of_turn"),
    "two answers": ([*messages("a", "b"), messages("a", "b")[1]], "roles_out_of_turn"),
    "a system message inside": (
        [*messages("a", "b"), {"role": "system", "content": "x"}],
        "roles_out_of_turn",
    ),
    "a tool": ([*messages("a"), {"role": "tool", "content": "x"}, *messages("a")], "other_role"),
    "an empty question": (messages("a", "b", " \n", "d"), "empty_prompt"),
    "an empty answer": (messages("a", ""), "empty_response"),
    "a null answer": (
        [*messages("a"), {"role": "assistant", "content": None}],
        "empty_response",
    ),
}


@pytest.mark.parametrize("name", DROPPED)
def test_a_conversation_that_teaches_nothing_is_counted_by_its_reason(
    tmp_path: Path, name: str
) -> None:
    value, reason = DROPPED[name]
    result = split(tmp_path, [{"messages": value}, *({"messages": messages(q, "b")} for q in "xy")])
    assert result.counts["s"]["dropped"] == {reason: 1}
    assert result.counts["s"]["rows"] == 3
    for form in (value, value and [{"from": m["role"], "value": m["content"]} for m in value]):
        _, dropped = read(tmp_path, write(tmp_path, [{"conversations": form}]))
        assert dropped == {reason: 1}


WRONG: dict[str, tuple[Any, str]] = {
    "role and text": ([{"role": "user", "text": "a"}], r"messages\[0\] has the keys role, text"),
    "texts": (["a", "b"], r"messages\[0\] is of type str"),
    "a number": (5, "a conversation of type int"),
    "a dictionary": ({"role": "user", "content": "a"}, "a conversation of type dict"),
    "text": ("hello", "text, but no JSON"),
    "deep JSON": ("[" * 100_000, "text, but no JSON"),
    "a number as content": ([{"role": "user", "content": 5}], "a content of type int"),
    "columns of other lengths": (
        {"role": ["user", "assistant"], "content": ["a"]},
        "a conversation with 2 of role, 1 of content",
    ),
    "an image": ([{"role": "user", "content": [{"type": "image"}]}], "a content of type list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_conversation_is_named_with_its_row(tmp_path: Path, name: str) -> None:
    value, message = WRONG[name]
    section = write(tmp_path, [{"messages": messages("a", "b")}, {"messages": value}])
    with pytest.raises(DataError, match=r"^rows\.jsonl:2.*" + message) as caught:
        read(tmp_path, section)
    assert "\n" not in str(caught.value)


def test_a_file_with_neither_form_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\na,b\n")
    pq.write_table(pa.table({"question": ["a"], "answer": ["b"]}), tmp_path / "rows.parquet")
    write(tmp_path, [{"question": "a", "answer": "b"}])
    fix = (
        r"no field 'prompt'; there are 'question', 'answer'\. Name .*: prompt_field and response_f"
    )
    for name in ("rows.csv", "rows.parquet", "rows.jsonl"):
        with pytest.raises(DataError, match=fix):
            read(tmp_path, PairSource(name="s", paths=(name,)))


def test_repeated_conversations_are_duplicates_and_longer_ones_are_not(tmp_path: Path) -> None:
    said = (TURNS, TURNS, TURNS[:2], (*TURNS[:3], "No idea."))
    rows = [{"messages": messages(*turns)} for turns in said]
    rows += [{"conversations": share_gpt(*TURNS)}, {"messages": messages(*TURNS, system="x")}]
    rows += [{"messages": messages("other?", "b")}]
    assert split(tmp_path, rows).counts["s"]["dropped"] == {"duplicate": 2}


def test_no_later_question_is_one_that_the_other_side_begins_with(tmp_path: Path) -> None:
    """Else a held-out answer would be learnt from the later turn of another conversation."""
    rows: list[dict[str, Any]] = [
        {"messages": messages(f"Question {n}?", f"a{n}")} for n in range(60)
    ]
    rows += [
        {"messages": messages(f"Hello {n}", "Hi.", f"question  {n}?", f"a{n}", "Thanks", "Bye.")}
        for n in range(60)
    ]
    result = split(tmp_path, rows)
    sides = (result.train, result.validation)
    first = [{pair.prompt.lower() for pair in side} for side in sides]
    later = [
        {" ".join(text.lower().split()) for pair in side for text in pair.later[::2]}
        for side in sides
    ]
    assert not later[0] & first[1] and not later[1] & first[0]
    # What does not cross stays whole, and what does is cut before it.
    assert {len(pair.later) for side in sides for pair in side} == {0, 4}
    assert sum(len(pair.later) == 4 for pair in result.train) > 20
    assert len(result.train) + len(result.validation) == 120


def test_conversations_with_the_same_first_question_are_on_one_side(tmp_path: Path) -> None:
    rows = [
        {"messages": messages(f"Question {n // 4}?", f"a{n}", "Why?", f"b{n}", system=f"s{n % 3}")}
        for n in range(200)
    ]
    result = split(tmp_path, rows)
    first = [{pair.prompt for pair in part} for part in (result.train, result.validation)]
    assert not first[0] & first[1] and len(first[0] | first[1]) == 50
    assert 5 < len(first[1]) < 25  # 0.3 of 50


words = st.lists(st.sampled_from(["bond", "yield", "€", "12.5%", "a"]), min_size=1, max_size=9)
sentences = words.map(" ".join)


@pytest.fixture(scope="module")
def exported(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' tokenizer of a folder as it is exported."""
    folder = tmp_path_factory.mktemp("exported")
    tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


@given(system=st.just("") | sentences, turns=st.lists(sentences, min_size=2, max_size=8))
@settings(max_examples=150)
def test_training_has_the_ids_and_the_mask_of_the_exported_template(
    tokenizer: Tokenizer, exported: Any, system: str, turns: list[str]
) -> None:
    turns = turns[: len(turns) // 2 * 2]
    pair = Pair("p", turns[0], turns[1], system=system, later=tuple(turns[2:]))
    conversation = encode_pair(tokenizer, pair, 4096)
    rendered = exported.apply_chat_template(
        messages(*turns, system=system), return_assistant_tokens_mask=True, return_dict=True
    )
    assert list(conversation.ids) == rendered["input_ids"]
    assert list(conversation.trained) == [bool(mark) for mark in rendered["assistant_masks"]]
    answers = [[*tokenizer.encode(f" {answer}"), tokenizer.eot_id] for answer in turns[1::2]]
    learnt = [i for i, t in zip(conversation.ids, conversation.trained, strict=True) if t]
    assert learnt == [i for answer in answers for i in answer]


@given(
    system=st.just("") | sentences,
    turns=st.lists(sentences, min_size=2, max_size=10),
    length=st.integers(16, 90),
)
@settings(max_examples=300)
def test_the_newest_whole_turns_that_fit_stay_with_the_system_message(
    tokenizer: Tokenizer, system: str, turns: list[str], length: int
) -> None:
    turns = turns[: len(turns) // 2 * 2]
    pair = Pair("p", turns[0], turns[1], system=system, later=tuple(turns[2:]))
    found = encode_pair(tokenizer, pair, length)
    assert found.positions <= length and any(found.trained)
    kept = {
        start: tokenizer.encode_chat_with_mask(messages(*turns[start:], system=system))
        for start in range(0, len(turns), 2)
    }
    fitting = [start for start, (ids, _) in kept.items() if len(ids) <= length + 1]
    if fitting:
        ids, trained = kept[min(fitting)]
        assert (list(found.ids), list(found.trained)) == (ids, trained)
        assert found.turns_cut == min(fitting) // 2 and not found.prompt_cut + found.response_cut
    else:  # the last turn alone is cut as a pair is
        assert found.turns_cut == len(turns) // 2 - 1 and found.positions == length
        ids, _ = kept[len(turns) - 2]
        assert len(ids) - len(found.ids) == found.prompt_cut + found.response_cut
        middle = found.ids.index(tokenizer.assistant_id)
        head = tokenizer.encode(f" {system}\n\n")[:-1] if system else []
        if len(head) + 1 < middle // 2:
            assert list(found.ids[1 : len(head) + 1]) == head
