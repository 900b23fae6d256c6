from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tallyformer.inference.stop import StopMatcher

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=3)


def _run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(piece) for piece in pieces) + matcher.finish()
    return text, matcher.matched


def _by_hand(stops: list[str], text: str) -> tuple[str, bool]:
    """Read character by character; the first stop that is complete ends the text before it."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(TEXT, STOPS, st.lists(st.integers(0, 30)))
def test_the_result_does_not_depend_on_how_the_text_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert _run(stops, pieces) == _by_hand(stops, text)


@given(TEXT, STOPS)
def test_no_text_is_passed_on_that_a_stop_string_could_still_take_back(
    text: str, stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    passed = ""
    for end, character in enumerate(text, start=1):
        passed += matcher.push(character)
        if matcher.matched:
            break
        held = text[len(passed) : end]
        assert text[:end] == passed + held
        assert not held or any(stop.startswith(held) for stop in stops)


def test_nothing_is_held_back_without_stop_strings() -> None:
    assert StopMatcher(()).push("any text") == "any text"


def test_text_after_the_stop_string_is_gone() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.push("one STOP two") == "one "
    assert matcher.matched and matcher.push("three") == "" and matcher.finish() == ""
