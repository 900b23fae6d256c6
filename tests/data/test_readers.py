from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tallyformer.config.data import PairSource, TextSource
from tallyformer.corpus.questions import facts
from tallyformer.data.json_rows import json_rows
from tallyformer.data.pairs import read_pairs
from tallyformer.data.rows import fields_of
from tallyformer.data.sources import pair_source, text_source
from tallyformer.errors import DataError, InvalidTextError

UNPACKED: dict[str, Callable[[bytes], bytes]] = {"": lambda data: data}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".bz2": bz2.compress,
}
COMPRESS = UNPACKED | PACKED
TEXTS = ["first", "zwei\nZeilen", 'mit "quotes", and, commas', "日本語 💶", "last"]


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(pattern: str, root: Path, **options: Any) -> list[str]:
    """Every text of a source with one pattern."""
    section = TextSource(name="s", paths=(pattern,), **options)
    source = text_source(section, data_root=str(root), seed=0, max_chars=1000)
    return [
        fields_of(row, source.files[row.file], source.required)[section.text_field]
        for row in source.rows()
    ]


def write_csv(path: Path, texts: list[str]) -> None:
    path.write_bytes(csv_of(texts))


BOM = b"\xef\xbb\xbf"


def csv_of(texts: list[str], delimiter: str = ",") -> bytes:
    cells = [text.replace('"', '""') for text in texts]
    rows = "".join(f'1{delimiter}"{cell}"\r\n' for cell in cells)
    return f"id{delimiter}text\r\n{rows}".encode()


ROWS = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]
FORMS = {
    "a.jsonl": json_lines(ROWS),
    "lines called .json": json_lines(ROWS),
    "a.ndjson": json_lines(ROWS),
    "a.json": json.dumps(ROWS).encode(),
    "pretty.json": b" \n" + json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "array called .jsonl": json.dumps(ROWS).encode(),
    "joined.json": b"".join(json.dumps([row]).encode() + b"\n" for row in ROWS),
    "a.csv": csv_of(TEXTS),
    "A.CSV": csv_of(TEXTS),
    "a.tsv": csv_of(TEXTS, "\t"),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_rows_in_every_compression_gives_its_texts_in_order(
    tmp_path: Path, form: str, suffix: str
) -> None:
    suffix_of_kind = f".{form.rpartition('.')[2]}"
    (tmp_path / f"a{suffix_of_kind}{suffix}").write_bytes(COMPRESS[suffix](BOM + FORMS[form]))
    assert read(f"a{suffix_of_kind}{suffix}", tmp_path) == TEXTS


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_text_file_in_every_compression_is_one_document(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(COMPRESS[suffix](BOM + "日本語\n\nText".encode()))
    assert read(f"a.txt{suffix}", tmp_path) == ["日本語\n\nText"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_parts_that_were_joined_are_read_whole_each_with_its_byte_order_mark(
    tmp_path: Path, suffix: str
) -> None:
    parts = [BOM + json_lines([{"text": text}]) for text in TEXTS]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    assert read(f"a.jsonl{suffix}", tmp_path) == TEXTS
    rows = csv_of(TEXTS).split(b"\r\n", 1)
    parts = [BOM + rows[0] + b"\r\n", BOM + b'"1",' + rows[1][2:]]
    (tmp_path / f"a.csv{suffix}").write_bytes(b"".join(map(COMPRESS[suffix], parts)))
    assert read(f"a.csv{suffix}", tmp_path) == TEXTS


@given(
    rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1),
    indent=st.none() | st.integers(0, 3),
    piece=st.integers(1, 40),
)
def test_an_array_is_read_in_pieces_of_any_size(
    rows: list[dict[str, Any]], indent: int | None, piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tallyformer.data.json_rows._PIECE", piece)
        data = json.dumps(rows, indent=indent).encode()
        found = list(json_rows(io.BytesIO(data), "a", 10_000))
    assert [number for number, _ in found] == list(range(1, len(rows) + 1))
    assert [json.loads(text) for _, text in found] == rows


def test_a_row_of_an_array_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallyformer.data.readers.LINE_BYTES", 100_000)
    (tmp_path / "a.json").write_text('[{"text": "x"}, {"text": "' + "z" * 10**6)
    with pytest.raises(DataError, match=r"a\.json:2: the row is longer than 100000 bytes"):
        read("a.json", tmp_path)


def test_a_line_of_csv_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallyformer.data.readers.LINE_BYTES", 100_000)
    (tmp_path / "a.csv").write_text("text\nx\n" + "z" * 10**6)
    with pytest.raises(DataError, match=r"a\.csv: line 3 is longer than 100000 characters"):
        read("a.csv", tmp_path)


def test_a_compressed_text_beyond_the_limit_is_not_unpacked_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 10**6))
    section = TextSource(name="s", paths=("a.txt.gz",))
    source = text_source(section, data_root=str(tmp_path), seed=0, max_chars=1000)
    assert [row.payload for row in source.rows()] == [None]


EMPTY_FILES = {
    "a.jsonl": b"",
    "b.jsonl.gz": gzip.compress(b""),
    "c.jsonl": b"\n \n" + BOM + b"\n",
    "d.csv": b"id,text\n",
    "e.json": b"[]",
    "f.txt": b"",
}


def test_empty_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    for name, data in EMPTY_FILES.items():
        (tmp_path / name).write_bytes(data)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "g.parquet")
    with pytest.raises(DataError, match="source 's': all its 7 files are empty, the first is"):
        read("*", tmp_path)
    (tmp_path / "h.jsonl").write_bytes(json_lines(ROWS))
    assert read("*", tmp_path) == TEXTS
    section = TextSource(name="s", paths=("*",))
    source = text_source(section, data_root=str(tmp_path), seed=0, max_chars=1000)
    assert list(source.empty_files) == [*EMPTY_FILES, "g.parquet"]


def test_what_a_pattern_names_and_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    with pytest.raises(DataError, match=r"b\.txt: is a link to 'gone\.txt', which is not there"):
        read("*.txt", tmp_path)
    with pytest.raises(DataError, match=r"b\.txt: is a link"):
        read("b.txt", tmp_path)
    (tmp_path / "b.txt").unlink()
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(DataError, match=r"b\.txt: is not a file that can be read twice"):
        read("*.txt", tmp_path)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "b.txt").mkdir()
    assert read("*.txt", tmp_path) == ["one"]


@pytest.mark.parametrize("pattern", ["*/*.txt", "**/*.txt", "d/*.txt", "*/a.txt"])
def test_a_folder_that_may_not_be_read_is_refused(ordinary_user: Path, pattern: str) -> None:
    for name in ("c", "d"):
        (ordinary_user / name).mkdir()
        (ordinary_user / name / "a.txt").write_text("x")
    (ordinary_user / "d").chmod(0)
    try:
        with pytest.raises(DataError, match="d: cannot be read"):
            read(pattern, ordinary_user)
    finally:
        (ordinary_user / "d").chmod(0o700)


@pytest.mark.parametrize("nested", ["list", "null", "struct", "text"])
def test_parquet_gives_what_the_same_rows_as_json_lines_give(tmp_path: Path, nested: str) -> None:
    value: Any = {
        "list": [["", "2019"], ["Sales", "44"]],
        "null": None,
        "struct": {"a": "x"},
        "text": "plain",
    }[nested]
    rows = [{"prompt": f"Sales {n}?", "response": "44.1", "more": value} for n in range(3)]
    (tmp_path / "a.jsonl").write_bytes(json_lines(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")

    def outcome(name: str) -> Any:
        section = PairSource(name="s", paths=(name,), context_fields=("more",))
        source = pair_source(section, data_root=str(tmp_path), seed=0)
        try:
            return [pair.question for pair in read_pairs(source, section, Counter())]
        except DataError as error:
            return str(error).replace("parquet", "jsonl")

    assert outcome("a.parquet") == outcome("a.jsonl")


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_csv_gives_back_any_text(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    write_csv(folder / "a.csv", ["x", *texts])
    assert read("a.csv", folder) == ["x", *texts]


def test_csv_fields_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x" * 500_000])
    assert read("a.csv", tmp_path) == ["x" * 500_000]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"])
def test_parquet_gives_its_texts_in_order(tmp_path: Path, kind: Any) -> None:
    column = pa.array([*TEXTS, None], pa.string())
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    table = pa.table({"id": list(range(6)), "body": column})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert read("a.parquet", tmp_path, text_field="body") == [*TEXTS, ""]


def test_each_text_file_is_one_document_in_the_order_of_names(tmp_path: Path) -> None:
    for name, text in (("b/2.md", "two"), ("b/10.txt", "ten"), ("a/1.txt", "one")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read("**/*.*", tmp_path) == ["one", "ten", "two"]


def test_a_file_named_by_two_patterns_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    section = TextSource(name="s", paths=("a.txt", "*.txt"))
    source = text_source(section, data_root=str(tmp_path), seed=0, max_chars=10)
    assert list(source.files) == ["a.txt"]


def test_characters_of_data_root_are_not_a_pattern(tmp_path: Path) -> None:
    root = tmp_path / "data [v2]*"
    root.mkdir()
    (root / "a.txt").write_text("one")
    assert read("*.txt", root) == read("a.txt", root) == ["one"]


def test_files_of_one_name_outside_data_root_are_told_apart(tmp_path: Path) -> None:
    for name in ("in/x.txt", "d/a/x.txt", "d/b/x.txt", "e/b/x.txt", "e/y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def source() -> Any:
        names = ("d/a/x.txt", "d/b/x.txt", "e/b/x.txt", "e/y.txt")
        section = TextSource(name="s", paths=("x.txt", *(str(tmp_path / n) for n in names)))
        return text_source(section, data_root=str(tmp_path / "in"), seed=0, max_chars=10)

    assert source().files == ["x.txt", "a/x.txt", "d/b/x.txt", "e/b/x.txt", "y.txt"]
    before = source().fingerprints()
    assert len(before) == 5
    (tmp_path / "d/a/x.txt").write_text("changed")
    after = source().fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"s/a/x.txt"}


def test_a_file_named_in_two_ways_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    section = TextSource(name="s", paths=("a.txt", str(tmp_path / "a.txt")))
    assert text_source(section, data_root=".", seed=0, max_chars=10).files == ["a.txt"]


def test_what_was_read_adds_up_to_the_size(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json_lines([{"text": t} for t in TEXTS])))
    write_csv(tmp_path / "b.csv", TEXTS)
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("x")
    source = text_source(
        TextSource(name="s", paths=("*",)), data_root=str(tmp_path), seed=0, max_chars=10
    )
    assert [
        sum(row.read for row in source.rows_of_file(file)) for file in range(len(source.files))
    ] == source.sizes


def test_fingerprints_change_with_the_contents_alone(tmp_path: Path) -> None:
    def prints() -> dict[str, str]:
        section = TextSource(name="s", paths=("a.txt",))
        return text_source(section, data_root=str(tmp_path), seed=0, max_chars=10).fingerprints()

    (tmp_path / "a.txt").write_text("one")
    before = prints()
    (tmp_path / "a.txt").touch()
    assert prints() == before
    (tmp_path / "a.txt").write_text("two")
    assert prints() != before


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


# Texts that hardly compress, so that half of the compressed file holds whole rows.
MANY = json_lines([{"text": f"{n * 7919 % 104729:x}" * 9} for n in range(5000)])
PARQUET = pa.BufferOutputStream()
pq.write_table(pa.table({"text": TEXTS}), PARQUET)

BAD_FILES = {
    "cut bz2": ("a.jsonl.bz2", cut(bz2.compress(MANY)), "damaged or cut off"),
    "not bz2": ("a.jsonl.bz2", MANY, "damaged or cut off"),
    "cut txt": ("a.txt.gz", cut(gzip.compress(b"x" * 99)), "damaged or cut off"),
    "packed parquet": ("a.parquet.gz", b"x", "compressed inside. Unpack it first"),
    "cut array": ("a.json", b'[{"text": "x"}, {"text": "y"', r"a\.json:2: not valid JSON"),
    "open array": ("a.json", b'[{"text": "x"}', r"a\.json:1: .*the array does not end"),
    "no comma": ("a.json", b'[{"text": "x"} {"text": "y"}]', r"a\.json:1: .*a comma is missing"),
    "comma too much": ("a.json", b'[{"text": "x"},]', r"a\.json:2: not valid JSON"),
    "after the array": ("a.json", b'[{"text": "x"}] z', r"a\.json:1: .*more text after"),
    "number in array": ("a.json", b'[{"text": "x"}, 3]', r"a\.json:2: a int, not an object"),
    "bad utf8 array": ("a.json", b'[{"text": "\xff"}]', r"a\.json:1: not valid UTF-8 at byte 10"),
    "digits in array": (
        "a.json",
        b'[{"text": "x", "n": ' + b"9" * 5000 + b"}]",
        r"a\.json:1: not valid JSON \(a number has too many digits\)",
    ),
    "deep array": (
        "a.json",
        b'[{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}]",
        r"a\.json:1: not valid JSON \(nested too deeply\)",
    ),
    "empty array": ("a.json", b"[\n]\n", "has no rows"),
    "empty text": ("a.txt", b"", r"a\.txt: is empty"),
    "empty rows": ("a.jsonl", b"", r"a\.jsonl: is empty"),
    "only blank lines": ("a.jsonl", b"\n\n", r"a\.jsonl: has no rows"),
    "compressed nothing": ("a.jsonl.gz", gzip.compress(b""), "has no rows"),
    "header alone": ("a.csv", b"id,text\n", "has no rows"),
    "cut gz": ("a.jsonl.gz", cut(gzip.compress(MANY)), "damaged or cut off"),
    "cut xz": ("a.jsonl.xz", cut(lzma.compress(MANY)), "damaged or cut off"),
    "cut zst": ("a.jsonl.zst", cut(COMPRESS[".zst"](MANY)), "damaged or cut off"),
    "not gz": ("a.jsonl.gz", MANY, "damaged or cut off"),
    "not xz": ("a.jsonl.xz", MANY, "damaged or cut off"),
    "not zst": ("a.jsonl.zst", MANY, "damaged or cut off"),
    "cut parquet": ("a.parquet", cut(PARQUET.getvalue().to_pybytes()), "damaged or no Parquet"),
    "bad json": ("a.jsonl", b'{"text": "x"}\n{"text": "y"\n', r"a\.jsonl:2: not valid JSON"),
    "no object": ("a.jsonl", b'{"text": "x"}\n["text"]\n', r"a\.jsonl:2: a list, not an object"),
    "no field": (
        "a.jsonl",
        b'{"text": "x"}\n{"body": "y", "id": 3}\n',
        r"a\.jsonl:2: no field 'text'; there are 'body', 'id'",
    ),
    "no csv column": (
        "a.csv",
        b"id,body\n1,x\n",
        r"a\.csv: no field 'text'; there are 'id', 'body'",
    ),
    "list": (
        "a.jsonl",
        b'{"text": ["a"]}\n',
        r"a\.jsonl:1: field 'text' is of type list, not",
    ),
    "number": ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: field 'text' is of type int, not"),
    "short csv row": ("a.csv", b"id,text\n1,x\n2\n", r"a\.csv:2: 1 columns, the header has 2"),
    "open csv quote": ("a.csv", b'id,text\n1,x\n2,"y\n', r"a\.csv:2: not valid CSV"),
    "bad utf8 line": (
        "a.jsonl",
        b'{"text": "x"}\n{"text": "\xff"}\n',
        r"a\.jsonl:2: .* byte 10",
    ),
    "bad utf8 text": ("a.txt", b"abc\xe2\x82", r"a\.txt: not valid UTF-8 at byte 3"),
    "bad utf8 csv": ("a.csv", b"id,text\n1,x\n2,\xff\n", r"a\.csv:2: not valid UTF-8"),
    "too many digits": (
        "a.jsonl",
        b'{"text": "x", "n": ' + b"9" * 5000 + b"}\n",
        r"a\.jsonl:1: not valid JSON \(a number has too many digits\)",
    ),
    "deep nesting": (
        "a.jsonl",
        b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n",
        r"a\.jsonl:1: not valid JSON \(nested too deeply\)",
    ),
    "two csv columns": (
        "a.csv",
        b"text,id,text\nx,1,y\n",
        r"a\.csv: has 2 columns 'text'\. Rename all but one",
    ),
    "surrogate": ("a.jsonl", b'{"text": "a\\ud800"}\n', r"a\.jsonl:1: .*lone surrogate"),
    "unknown kind": ("a.docx", b"x", r"a\.docx: no reader for this kind of file"),
}


@pytest.mark.parametrize(("name", "data", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_input_is_named_with_its_place(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_line_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallyformer.data.readers.LINE_BYTES", 20_000)
    row = json.dumps({"text": "x", "other": "y" * 19_900}) + "\n"
    (tmp_path / "a.jsonl").write_text(row + "z" * 20_001 + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is longer than 20000 bytes"):
        read("a.jsonl", tmp_path)


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_damaged_parquet_page_says_to_fetch_the_file_again(
    tmp_path: Path, compression: str
) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{n * 7919 % 104729:x}" * 9 for n in range(500)]
    pq.write_table(pa.table({"text": texts}), path, compression=compression, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[20:400] = b"\xff" * 380
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: damaged.*Fetch the file again"):
        read("a.parquet", tmp_path)


def test_two_parquet_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    columns = [pa.array(["x"]), pa.array(["y"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: has 2 columns 'text'\. Rename all but one"):
        read("a.parquet", tmp_path)


def test_parquet_without_the_field_or_with_numbers_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: no field 'text'; there are 'id', 'body'"):
        read("a.parquet", tmp_path)
    with pytest.raises(DataError, match="field 'id' is of type int64, not text"):
        read("a.parquet", tmp_path, text_field="id")


def test_invalid_utf8_in_parquet_is_named_with_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"ok", b"\xff"], pa.binary())
    column = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InvalidTextError, match=r"a\.parquet:2: not valid UTF-8"):
        read("a.parquet", tmp_path)


@pytest.mark.parametrize("pattern", ["missing.txt", "*.jsonl", "no/such/*.txt"])
def test_a_pattern_without_files_is_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match="source 's': no file matches"):
        read(pattern, tmp_path)


def test_a_folder_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(DataError, match="texts: is a folder. Name its files".replace(".", r"\.")):
        read("texts", tmp_path)


def test_a_text_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 4001)
    section = TextSource(name="s", paths=("a.txt",))
    source = text_source(section, data_root=str(tmp_path), seed=0, max_chars=1000)
    assert [row.payload for row in source.rows()] == [None]


def test_pairs_cannot_come_from_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="has no fields"):
        pair_source(PairSource(name="p", paths=("a.txt",)), data_root=str(tmp_path), seed=0)


def test_a_hub_data_set_without_its_package_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'tallyformer\[hub\]'"):
        text_source(TextSource(name="s", dataset="x/y"), data_root=".", seed=0, max_chars=9)


def test_the_shipped_corpora_hold_no_held_out_question() -> None:
    section = TextSource(name="s", corpus="questions")
    source = text_source(section, data_root=".", seed=0, max_chars=9)
    texts = [dict(row.payload)["text"] for row in source.rows()]  # type: ignore[arg-type]
    held_out = [question for fact in facts() for question in fact.held_out]
    assert len(texts) == sum(len(fact.questions) for fact in facts()) > 0
    assert not [q for q in held_out if any(text.startswith(q + "\n") for text in texts)]


@pytest.mark.parametrize("corpus", ["primer", "questions", "worked-examples"])
def test_the_shipped_corpora_are_the_same_each_time(corpus: Any) -> None:
    examples = {"examples": 20} if corpus == "worked-examples" else {}
    section = TextSource(name="s", corpus=corpus, **examples)

    def source(seed: int) -> Any:
        return text_source(section, data_root=".", seed=seed, max_chars=9)

    assert source(1).fingerprints() == source(1).fingerprints()
    assert (source(1).fingerprints() == source(2).fingerprints()) == (corpus != "worked-examples")


def test_a_table_is_read_one_line_a_row(tmp_path: Path) -> None:
    row = {"prompt": "Sales?", "response": "44.1", "table": [["", "2019"], ["Sales", 44.1]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    section = PairSource(name="s", paths=("a.jsonl",), context_fields=("table",))
    (pair,) = read_pairs(pair_source(section, data_root=str(tmp_path), seed=0), section, Counter())
    assert pair.question == "| 2019\nSales | 44.1\n\nSales?"
