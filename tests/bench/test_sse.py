import itertools

from hypothesis import given
from hypothesis import strategies as st

from tallyformer.bench.sse import EventDecoder

STREAM = (
    ": a comment\n\ndata: one\n\nevent: x\nid: 7\nretry: 3\ndata:two\ndata: lines\r\n\r\n"
    "data: 5 € for Jürgen 🙂\r\rdata: [DONE]\n\ndata: never ended"
).encode()
EVENTS = ["one", "two\nlines", "5 € for Jürgen 🙂", "[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_however_bytes_are_cut(cuts: list[int]) -> None:
    decoder = EventDecoder()
    places = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in itertools.pairwise(places)]
    assert [event for part in parts for event in decoder.feed(part)] == EVENTS


@given(st.binary(max_size=200))
def test_no_bytes_break_it(received: bytes) -> None:
    assert all(isinstance(event, str) for event in EventDecoder().feed(received))


def test_an_event_is_there_with_its_last_byte() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\n") == ["x"]
