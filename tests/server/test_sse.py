"""Server-sent events, byte for byte."""

from __future__ import annotations

import pytest

from tallyformer.server import sse


def test_an_event_is_one_data_line_and_an_empty_one_with_lf() -> None:
    assert sse.event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert sse.event(b"x", event_id=7) == b"id: 7\ndata: x\n\n"
    assert sse.event(b"x", name="response.created") == b"event: response.created\ndata: x\n\n"
    assert sse.DONE == b"data: [DONE]\n\n"


def test_keep_alive_is_a_comment_alone() -> None:
    assert sse.KEEP_ALIVE.startswith(b":")
    assert sse.KEEP_ALIVE.endswith(b"\n\n")
    assert sse.KEEP_ALIVE.count(b"\n") == 2


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\u2028 \u2029", "Zinsen für 5 €", "😀"])
def test_json_is_ascii_on_one_line(text: str) -> None:
    made = sse.json_bytes({"text": text})
    assert made.isascii()
    assert not set(b"\r\n") & set(made)
    assert b": " not in made


def test_a_line_break_in_data_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        sse.event(b"a\nb")
