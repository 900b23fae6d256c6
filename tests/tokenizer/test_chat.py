from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tallyformer.errors import UsageError
from tallyformer.tokenizer import Tokenizer

from .strategies import CONTROL, benign_texts, forgeries, texts


def conversations(contents: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    """An optional system message, then one to four turns."""

    def build(system: str | None, turns: list[str]) -> list[dict[str, str]]:
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(turns)]
        return messages if system is None else [{"role": "system", "content": system}, *messages]

    return st.builds(build, st.none() | contents, st.lists(contents, min_size=1, max_size=4))


@pytest.fixture(scope="module")
def template(saved: Path) -> Any:
    """transformers' tokenizer of the saved folder, which renders the chat template."""
    return AutoTokenizer.from_pretrained(saved)


@given(messages=conversations(benign_texts))
@settings(max_examples=200)
def test_template_and_encoder_give_equal_ids_and_masks(
    tokenizer: Tokenizer, template: Any, messages: list[dict[str, str]]
) -> None:
    rendered = template.apply_chat_template(
        messages, return_assistant_tokens_mask=True, return_dict=True
    )
    ids, trained = tokenizer.encode_chat_with_mask(messages)
    assert rendered["input_ids"] == ids == tokenizer.encode_chat(messages)
    assert [bool(m) for m in rendered["assistant_masks"]] == trained


@given(messages=conversations(benign_texts).filter(lambda m: m[-1]["role"] == "user"))
def test_template_and_encoder_agree_on_the_generation_prompt(
    tokenizer: Tokenizer, template: Any, messages: list[dict[str, str]]
) -> None:
    rendered = template.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert rendered == tokenizer.encode_chat(messages, add_generation_prompt=True)
    assert rendered[-1] == tokenizer.assistant_id


@given(messages=conversations(st.one_of(texts, forgeries)))
@settings(max_examples=400)
def test_no_content_forges_a_turn(
    tokenizer: Tokenizer, template: Any, messages: list[dict[str, str]]
) -> None:
    turns = [m["role"] for m in messages if m["role"] != "system"]
    control = {"user": [tokenizer.user_id], "assistant": [tokenizer.assistant_id, tokenizer.eot_id]}
    expected = [i for role in turns for i in control[role]]
    for ids in (
        tokenizer.encode_chat(messages),
        template.apply_chat_template(messages, return_dict=False),
    ):
        assert [i for i in ids if i in tokenizer.control_ids] == expected


@given(texts, texts)
def test_trained_are_the_answer_and_its_end_and_nothing_else(
    tokenizer: Tokenizer, question: str, answer: str
) -> None:
    ids, trained = tokenizer.encode_chat_with_mask(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    )
    learnt = [i for i, t in zip(ids, trained, strict=True) if t]
    assert learnt[-1] == tokenizer.eot_id
    assert tokenizer.decode(learnt) == f" {answer.strip()}"
    assert trained == sorted(trained)
    untrained = [i for i, t in zip(ids, trained, strict=True) if not t]
    assert tokenizer.decode(untrained) == f" {question.strip()} "


def test_the_format_is_as_documented(tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": "What is cash? "},
        {"role": "assistant", "content": " Money at hand."},
        {"role": "user", "content": "And credit?"},
    ]
    ids = tokenizer.encode_chat(messages, add_generation_prompt=True)
    assert tokenizer.decode(ids, skip_control=False) == (
        "<|user|> Be brief.\n\nWhat is cash? <|assistant|> Money at hand.<|endoftext|>"
        "<|user|> And credit? <|assistant|>"
    )


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([], "no user message"),
        (["system"], "no user message"),
        (["assistant"], "message 0 has role 'assistant' where 'user' is due"),
        (["user", "user"], "message 1 has role 'user' where 'assistant' is due"),
        (["system", "user", "tool"], "message 2 has role 'tool' where 'assistant' is due"),
        (["user", "system"], "message 1 has role 'system' where 'assistant' is due"),
    ],
)
def test_wrong_roles_are_refused_by_encoder_and_template(
    tokenizer: Tokenizer, template: Any, roles: list[str], message: str
) -> None:
    messages = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises(UsageError, match=message):
        tokenizer.encode_chat(messages)
    with pytest.raises(Exception, match=r"user message|in turn|empty"):
        template.apply_chat_template(messages)


def test_a_generation_prompt_after_an_answer_is_refused(
    tokenizer: Tokenizer, template: Any
) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(UsageError, match="a generation prompt follows a user message"):
        tokenizer.encode_chat(messages, add_generation_prompt=True)
    with pytest.raises(Exception, match="a generation prompt follows a user message"):
        template.apply_chat_template(messages, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("message", "text"),
    [({"role": "user"}, "keys role and content"), ({"role": "user", "content": 3}, "type int")],
)
def test_messages_without_text_are_refused(
    tokenizer: Tokenizer, template: Any, message: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        tokenizer.encode_chat([message])
    with pytest.raises(Exception, match="a content is not text"):
        template.apply_chat_template([message])


def test_spelled_control_tokens_stay_readable_in_the_template(template: Any) -> None:
    text = template.apply_chat_template(
        [{"role": "user", "content": " ".join(CONTROL)}], tokenize=False
    )
    assert text == "<|user|> < |endoftext|> < |pad|> < |user|> < |assistant|> "


def test_only_full_spellings_are_broken(template: Any) -> None:
    content = "a <| b |> <|user| <|user |> <|us<|user|>er|> |user|>"
    text = template.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert text == f"<|user|> {content.replace('<|user|>', '< |user|>')} "


SPECIAL = ["<|im_start|>", "##", "aaaa", "__x__", "[x]", "x][x", "\U0001f600!", 'q"\\', "{{x}}"]
"""Control tokens that overlap themselves or each other, or are hard to quote."""


@pytest.fixture(scope="module")
def odd(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A saved tokenizer with all of them, here and in transformers."""
    folder = tmp_path_factory.mktemp("odd")
    state = json.loads((saved / "tokenizer.json").read_text())
    for token in SPECIAL:
        number = 476 + len(state["added_tokens"])
        added = {**state["added_tokens"][0], "id": number, "content": token}
        state["added_tokens"].append(added | {"lstrip": True, "rstrip": True})
    (folder / "tokenizer.json").write_text(json.dumps(state))
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.save(folder)
    return tokenizer, AutoTokenizer.from_pretrained(folder)


@given(
    content=st.lists(st.sampled_from([*SPECIAL, *"#a_x[]<|", "im_start"]), max_size=9).map("".join)
)
@settings(max_examples=400)
def test_no_content_becomes_a_special_token_of_another_vocabulary(
    odd: tuple[Tokenizer, Any], content: str
) -> None:
    tokenizer, theirs = odd
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    ids = theirs.apply_chat_template(messages, return_dict=False)
    expected = [tokenizer.user_id, tokenizer.assistant_id, tokenizer.eot_id]
    assert [i for i in ids if i in tokenizer.control_ids] == expected
    if not any(token in content for token in SPECIAL):
        assert ids == tokenizer.encode_chat(messages)
