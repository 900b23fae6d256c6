"""A file of metrics that is written while it is read: each line once, in bounded memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tallyformer.monitor.curve import Curve, CurveNews
from tallyformer.monitor.table import MOST_COLUMNS, MetricsRow, MetricsTable
from tallyformer.monitor.tail import LONGEST_LINE, Tail

MOST = LONGEST_LINE + 1


def _line(step: int, **values: Any) -> bytes:
    return json.dumps({"kind": "train", "step": step, **values}).encode() + b"\n"


class Writer:
    """What a training does to its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_bytes(b"")

    def append(self, text: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text)

    def replace(self, text: bytes) -> None:
        """As a resumed run does: a new file with the lines that its checkpoint knows."""
        fresh = self.path.with_suffix(".partial")
        fresh.write_bytes(text)
        fresh.replace(self.path)

    def cut(self, length: int) -> None:
        """In place, as an editor may."""
        with self.path.open("r+b") as file:
            file.truncate(length)


_TEXTS = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"long " * 9, b"\xff"])).map(b"".join)
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), _TEXTS),
        st.tuples(st.just("resume"), st.integers(0, 200)),
        st.tuples(st.just("cut"), st.integers(0, 200)),
        st.tuples(st.just("read"), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(actions=_ACTIONS)
def test_what_was_read_is_always_the_whole_lines_of_the_file(
    tmp_path_factory: Any, actions: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    writer, seen = Writer(path), list[bytes | None]()
    tail = Tail(lambda: path.open("rb"))
    for action, value in [*actions, ("read", None)]:
        if action == "append":
            writer.append(value)
        elif action == "resume":
            writer.replace(path.read_bytes()[:value])
        elif action == "cut":
            writer.cut(min(value, path.stat().st_size))
        else:
            news = tail.read(MOST)
            seen = [*([] if news.restarted else seen), *news.lines]
            assert seen == path.read_bytes().split(b"\n")[:-1]


@given(pieces=st.lists(st.binary(max_size=40), max_size=12))
def test_lines_do_not_depend_on_when_one_looks(tmp_path_factory: Any, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    writer, tail = Writer(path), Tail(lambda: path.open("rb"))
    lines: list[bytes | None] = []
    for piece in pieces:
        writer.append(piece)
        lines += tail.read(MOST).lines
    assert lines == b"".join(pieces).split(b"\n")[:-1]


def test_a_line_that_is_too_long_is_given_up_and_the_next_one_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer, tail = Writer(path), Tail(lambda: path.open("rb"))
    lines: list[bytes | None] = []
    for piece in (b"one\n", b"x" * (3 * LONGEST_LINE), b"y" * 9, b"\ntwo\n"):
        writer.append(piece)
        while True:
            news = tail.read(MOST)
            lines += news.lines
            if not news.left:
                break
    assert lines == [b"one", None, b"two"]


def test_a_long_file_is_read_in_bounded_parts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    text = b"".join(b"%07d\n" % number for number in range(50_000))
    path.write_bytes(text)
    tail, parts, left = Tail(lambda: path.open("rb")), list[int](), 1
    while left:
        news = tail.read(MOST)
        parts.append(sum(len(line or b"") + 1 for line in news.lines))
        left = news.left
    assert sum(parts) == len(text) and max(parts) <= MOST


_VALUES = st.one_of(st.none(), st.floats(-1e6, 1e6))


@given(
    values=st.lists(st.tuples(_VALUES, _VALUES), max_size=200),
    most=st.sampled_from([2, 4, 10, 16]),
)
def test_buckets_are_means_and_extremes_of_equally_many_rows(
    values: list[tuple[float | None, float | None]], most: int
) -> None:
    table = MetricsTable(most)
    for step, (a, b) in enumerate(values):
        assert table.add(MetricsRow(step, {"a": a, "b": b}))
    width = table.width
    assert len(table.steps) <= most
    assert width == 1 or len(table.steps) >= most // 2
    groups = [values[i : i + width] for i in range(0, len(values), width)]
    assert list(table.steps) == [min(len(values), (i + 1) * width) - 1 for i in range(len(groups))]
    assert table.complete == len(values) // width
    for place, name in enumerate("ab"):
        of_groups = [[row[place] for row in group] for group in groups]
        numbers = [[v for v in group if v is not None] for group in of_groups]
        if name not in table.columns:
            assert not any(numbers)
            continue
        lows, highs = table.columns[name].extremes(0)
        means = table.columns[name].means(0)
        for group, mean, low, high in zip(numbers, means, lows, highs, strict=True):
            if not group:
                assert mean is low is high is None
                continue
            assert mean is not None and low is not None and high is not None
            # Nine digits are kept, of sums of up to 200 values.
            assert math.isclose(mean, math.fsum(group) / len(group), rel_tol=1e-6, abs_tol=1e-6)
            assert math.isclose(low, min(group), rel_tol=1e-8)
            assert math.isclose(high, max(group), rel_tol=1e-8)


def test_a_spike_is_seen_however_long_the_run(tmp_path: Path) -> None:
    table = MetricsTable(10)
    for step in range(10_000):
        table.add(MetricsRow(step, {"loss": 99.0 if step == 4321 else 1.0}))
    assert max(h or 0 for h in table.columns["loss"].extremes(0)[1]) == 99.0


def test_columns_are_bounded() -> None:
    table = MetricsTable()
    table.add(MetricsRow(1, {f"c{number}": 1.0 for number in range(10 * MOST_COLUMNS)}))
    assert len(table.columns) == MOST_COLUMNS


class Reader:
    """What a page keeps of a curve."""

    def __init__(self) -> None:
        self.cursor = ""
        self.rows: dict[str, dict[str, list[Any]]] = {}

    def take(self, news: CurveNews) -> None:
        if news.fresh:
            self.rows = {}
        for part in news.parts:
            rows = self.rows.setdefault(part.kind, {})
            for name, new in [("step", part.steps), *((c.name, c.means) for c in part.columns)]:
                rows[name] = rows.get(name, [])[: part.start] + list(new)
        self.cursor = news.cursor


@settings(max_examples=60)
@given(actions=st.lists(st.one_of(st.integers(1, 900), st.just("resume")), max_size=12))
def test_a_reader_of_parts_has_what_one_look_at_the_whole_gives(
    tmp_path_factory: Any, actions: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("curve") / "metrics.jsonl"
    writer, curve, reader, step = Writer(path), Curve(lambda: path.open("rb")), Reader(), 0
    for action in actions:
        if action == "resume":
            kept = path.read_bytes().split(b"\n")[: step // 2]
            writer.replace(b"".join(line + b"\n" for line in kept))
            step = len(kept)
        else:
            lines = [_line(n + 1, loss=float(n % 7)) for n in range(step, step + action)]
            writer.append(b"".join(lines))
            step += action
        reader.take(curve.look(reader.cursor))
    whole = Reader()
    whole.take(Curve(lambda: path.open("rb")).look())
    assert {k: v for k, v in reader.rows.items() if v["step"]} == {
        k: v for k, v in whole.rows.items() if v["step"]
    }


def test_what_has_not_changed_is_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer, curve = Writer(path), Curve(lambda: path.open("rb"))
    writer.append(_line(1, loss=3.0) + _line(2, loss=2.0))
    first = curve.look()
    writer.append(_line(3, loss=1.0))
    news = curve.look(first.cursor)
    assert not news.fresh
    assert news.parts[0].start == 2 and news.parts[0].columns[0].means == [1.0]


def test_lines_that_are_none_are_counted_and_hide_no_others(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = [
        b"\xff\xfe",
        b"{",
        b"[1]",
        b"[" * 5000,
        b'{"kind": "train", "step": "1"}',
        b'{"kind": "train", "step": true}',
        b'{"kind": "train", "step": -1}',
        b'{"kind": "train", "step": 1' + b"0" * 5000 + b"}",
        b'{"kind": {}, "step": 1}',
        b"",
    ]
    path.write_bytes(
        _line(1, loss=4.0)
        + b"".join(line + b"\n" for line in odd)
        + b'{"kind": "train", "step": 2, "loss": NaN, "a\\ud800": 1, "b": "<script>", "c": true}\n'
        + _line(2, loss=1.0)  # a step that was there
        + _line(3, loss=2.0)
        + b'{"kind": "train", "step": 4, "lo'
    )
    news = Curve(lambda: path.open("rb")).look()
    assert news.skipped == len(odd) + 1
    assert news.parts[0].steps == [1, 2, 3]
    assert {c.name: c.means for c in news.parts[0].columns} == {
        "loss": [4.0, None, 2.0],
        "a?": [None, 1.0, None],
    }


def test_a_foreign_cursor_gives_all(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(_line(1, loss=4.0))
    curve = Curve(lambda: path.open("rb"))
    good = curve.look().cursor
    for cursor in ("", "x", good + ".9", good.replace(":", ";"), "\x00", good[:-1] + "٣"):
        news = curve.look(cursor)
        assert news.fresh and news.parts[0].steps == [1], cursor
