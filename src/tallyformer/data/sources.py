"""The sources of a recipe: local files, data sets of the hub, and the corpora of the package.

Each yields rows in a fixed order and names what it reads, so that a stage knows whether its
inputs have changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from tallyformer.artifacts.manifest import sha256
from tallyformer.config.data import PAIR_FIELDS, PairSource, TextSource
from tallyformer.corpus.manners import conversations, questions_as_text
from tallyformer.corpus.primer import articles
from tallyformer.corpus.worked_examples import worked_examples
from tallyformer.data.dialogues import DIALOGUE_FIELDS
from tallyformer.data.documents import document_id
from tallyformer.data.files import TEXT_KINDS, check_is_file, find_files, kind_of, unreadable
from tallyformer.data.readers import read_file
from tallyformer.data.rows import Row, columns_of
from tallyformer.errors import DataError

_READERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")


class RowSource(Protocol):
    """Rows in a fixed order, and what decides them."""

    @property
    def name(self) -> str:
        """The source's name in the recipe."""

    @property
    def files(self) -> Sequence[str]:
        """Names of what is read, by file number."""

    @property
    def sizes(self) -> Sequence[int] | None:
        """What the `read` of each file's rows add up to: bytes, or rows; None if unknown."""

    @property
    def unit(self) -> str:
        """What `sizes` count."""

    @property
    def empty_files(self) -> Sequence[str]:
        """Names of those of `files` that hold no row, as far as that is known beforehand."""

    @property
    def required(self) -> Sequence[str]:
        """Fields that each row has."""

    @property
    def optional(self) -> Sequence[str]:
        """Fields that a row may have."""

    def rows(self) -> Iterator[Row]:
        """Every row, in the same order each time."""

    def rows_of_file(self, file: int) -> Iterator[Row]:
        """The rows of one file."""

    def fingerprints(self) -> dict[str, str]:
        """Name and checksum of everything that is read."""


def text_source(section: TextSource, *, data_root: str, seed: int, max_chars: int) -> RowSource:
    """The rows of a text source; each has the field `section.text_field`.

    Raises:
        DataError: a file is missing or of an unknown kind, or the hub's reader is missing.
    """
    if section.corpus:
        return BuiltinCorpus(section.name, section.corpus, section.examples, seed)
    if section.dataset:
        return HubDataset(section, data_root, (section.text_field,))
    paths = find_files(section.paths, data_root, section.name)
    return LocalFiles(
        section.name,
        paths,
        data_root,
        (section.text_field,),
        max_text_bytes=4 * max_chars,  # UTF-8 needs at most four bytes a character
    )


def pair_source(section: PairSource, *, data_root: str, seed: int) -> RowSource:
    """The rows of a pair source, with its prompt, response and context fields.

    Raises:
        DataError: a file is missing or of an unknown kind, or the hub's reader is missing.
    """
    if section.corpus:
        return BuiltinCorpus(section.name, section.corpus, section.examples, seed, pairs=True)
    required, either = pair_fields(section)
    if section.dataset:
        return HubDataset(section, data_root, required, section.context_fields, either)
    paths = find_files(section.paths, data_root, section.name)
    for path in paths:
        if kind_of(path) in TEXT_KINDS:
            raise DataError(f"{path}: has no fields. Give pairs as .jsonl, .csv or .parquet")
    return LocalFiles(
        section.name, paths, data_root, required, section.context_fields, either=either
    )


def pair_fields(section: PairSource) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Fields that each row has, and groups of which each row has one."""
    if section.messages_field:
        return (section.messages_field,), ()
    pair = (section.prompt_field, section.response_field)
    if pair != PAIR_FIELDS:
        return pair, ()
    return (), (pair, *((name,) for name in DIALOGUE_FIELDS))


def check_unchanged(sources: Sequence[RowSource], before: Mapping[str, str]) -> None:
    """Refuse what was made of inputs that changed while they were read.

    Args:
        sources: what was read, to the end or in part.
        before: among others, each source's fingerprints, taken before anything was read.

    Raises:
        DataError: a file has changed, or cannot be read any more.
    """
    for source in sources:
        for name, now in source.fingerprints().items():
            if before.get(name) != now:
                raise DataError(
                    f"{name}: has changed while it was being read. Start again when nothing "
                    "writes to it"
                )


def all_empty(name: str, paths: Sequence[Path]) -> DataError:
    """The error for a source none of whose files holds a row."""
    if len(paths) == 1:
        reason = "has no rows" if paths[0].stat().st_size else "is empty"
        return DataError(f"{paths[0]}: {reason}. Remove it from the paths, or fetch it again")
    return DataError(
        f"source {name!r}: all its {len(paths)} files are empty, the first is {paths[0]}. Correct "
        "the paths, or fetch them again"
    )


class LocalFiles:
    """Rows of files on the disk."""

    unit = "B"

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        data_root: str,
        required: Sequence[str],
        optional: Sequence[str] = (),
        *,
        either: Sequence[Sequence[str]] = (),
        max_text_bytes: int | None = None,
    ) -> None:
        for path in paths:
            kind_of(path)
        self.name = name
        self._paths = paths
        self.required = required
        self.optional = optional
        self._either = either
        self._max_text_bytes = max_text_bytes
        self.files = _labels(paths, data_root)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each file, as it lies on the disk."""
        return [path.stat().st_size for path in self._paths]

    @property
    def empty_files(self) -> list[str]:
        """Names of the files that hold no row."""
        numbered = enumerate(self.files)
        return [name for file, name in numbered if next(self.rows_of_file(file), None) is None]

    def rows(self) -> Iterator[Row]:
        """Every row, file by file; files without rows are passed over, unless all have none."""
        found = False
        for file in range(len(self._paths)):
            for row in self.rows_of_file(file):
                found = True
                yield row
        if not found:
            raise all_empty(self.name, self._paths)

    def rows_of_file(self, file: int) -> Iterator[Row]:
        """The rows of one file."""
        return read_file(
            self._paths[file],
            file=file,
            label=self.files[file],
            required=self.required,
            optional=self.optional,
            either=self._either,
            max_text_bytes=self._max_text_bytes,
        )

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each file, by name."""
        result = {}
        for path, label in zip(self._paths, self.files, strict=True):
            try:
                result[f"{self.name}/{label}"] = sha256(path)
            except OSError as error:
                raise unreadable(path, error) from None
        return result


class HubDataset:
    """Rows of a Hugging Face data set, a hub name or a local folder, read as a stream."""

    unit = "rows"
    sizes = None
    empty_files: Sequence[str] = ()

    def __init__(
        self,
        section: TextSource | PairSource,
        data_root: str,
        required: Sequence[str],
        optional: Sequence[str] = (),
        either: Sequence[Sequence[str]] = (),
    ) -> None:
        if importlib.util.find_spec("datasets") is None:
            raise DataError(
                f"source {section.name!r}: reading the data set {section.dataset!r} needs a "
                "package that is not installed. Install it: pip install 'tallyformer[hub]'"
            )
        self._dataset, self._files_kind, self._urls = dataset_files(section, data_root)
        self._section = section
        self.required = required
        self.optional = optional
        self._either = either
        self.name = section.name
        self.files = [f"{section.dataset}/{section.dataset_split}"]

    def rows(self) -> Iterator[Row]:
        """Every row of the data set's split."""
        import datasets  # an optional package, and slow to load

        try:
            stream = datasets.load_dataset(streaming=True, **self._arguments())
            for number, values in enumerate(stream, start=1):
                yield Row(0, number, self._wanted(number, values), 1)
        except DataError:
            raise
        except Exception as error:  # that library raises errors of many libraries
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"source {self.name!r}: the data set {self._dataset!r} cannot be read "
                f"({type(error).__name__}: {reason}). Check its name, config, split, data_files "
                "and revision, and the network"
            ) from None

    def _arguments(self) -> dict[str, Any]:
        """What `load_dataset` is called with.

        Files are read by their kind's own reader, as the data set's would refuse a repository
        that has a loading script.
        """
        split = self._section.dataset_split
        if self._files_kind:
            return {"path": self._files_kind, "data_files": {split: self._urls}, "split": split}
        return {
            "path": self._dataset,
            "name": self._section.dataset_config,
            "revision": self._section.revision,
            "split": split,
        }

    def _wanted(self, number: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
        where = document_id(self.files[0], number)
        names = columns_of(list(values), where, self.required, self.optional, self._either)
        return {name: values[name] for name in names}

    def rows_of_file(self, file: int) -> Iterator[Row]:
        """Every row; a data set counts as one file."""
        assert file == 0
        return self.rows()

    def fingerprints(self) -> dict[str, str]:
        """What names the data; for a local folder, the checksums of its files."""
        key = f"{self.name}/{self.files[0]}"
        folder = Path(self._dataset)
        if not folder.is_dir():
            wanted = self._section
            which = [wanted.dataset_config, wanted.revision, *wanted.data_files]
            return {key: f"hub:{wanted.dataset}:{json.dumps(which)}"}
        files = sorted(path for path in folder.rglob("*") if not path.is_dir())
        for path in files:
            check_is_file(path)
        parts = [(path.relative_to(folder).as_posix(), sha256(path)) for path in files]
        return {key: _digest(parts)}


def dataset_files(
    section: TextSource | PairSource, data_root: str
) -> tuple[str, str | None, list[str]]:
    """Where a data set is: its folder or hub name, and with `data_files` their kind and addresses.

    Raises:
        DataError: a local folder has a revision, or the files are not of one known kind.
    """
    where, name = f"source {section.name!r}", str(section.dataset)
    below = Path(data_root) / name
    local = below if below.exists() else Path(name)
    if local.exists() and section.revision:
        raise DataError(
            f"{where}: revision {section.revision!r} is for a hub name, and {local} is here. "
            "Remove revision"
        )
    if not section.data_files:
        return (str(local) if local.exists() else name), None, []
    kinds = {_reader_of(pattern) for pattern in section.data_files}
    kind = kinds.pop()
    if kinds or kind is None:
        raise DataError(
            f"{where}: data_files must all be of one of the kinds {', '.join(_READERS)}, "
            "compressed or not. Correct their names"
        )
    if local.exists():
        return str(local), kind, [str(local / pattern) for pattern in section.data_files]
    at = f"@{quote(section.revision, safe='')}" if section.revision else ""
    return name, kind, [f"hf://datasets/{name}{at}/{p}" for p in section.data_files]


def _reader_of(pattern: str) -> str | None:
    """The reader of the library `datasets` for such files."""
    name = pattern
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return _READERS.get(Path(name).suffix)


class BuiltinCorpus:
    """Rows of a corpus that ships with the package: `text`, and for pairs prompt and response.

    As pairs, the questions continue into follow-ups and have small talk beside them: such a row has
    `messages` in place of a response.

    Held-out questions and held-out examples are never among them. A pair's prompt decides its
    split, as a text too, so that what fine-tuning holds out has not been pretrained on.
    """

    unit = "rows"
    optional: Sequence[str] = ()
    empty_files: Sequence[str] = ()

    def __init__(
        self, name: str, corpus: str, examples: int, seed: int, *, pairs: bool = False
    ) -> None:
        self.name = name
        self.required = () if pairs else ("text",)
        self.files = [f"corpus-{corpus}"]
        values: Iterator[dict[str, Any]]
        if corpus == "primer":
            values = _primer_rows()
        elif corpus == "questions":
            values = _conversation_rows() if pairs else _question_rows()
        else:
            values = _example_rows(examples, seed)
        self._values = list(values)

    @property
    def sizes(self) -> list[int]:
        """Number of rows."""
        return [len(self._values)]

    def rows(self) -> Iterator[Row]:
        """Every row."""
        for number, values in enumerate(self._values, start=1):
            yield Row(0, number, values, 1, values.get("prompt"))

    def rows_of_file(self, file: int) -> Iterator[Row]:
        """Every row; a corpus counts as one file."""
        assert file == 0
        return self.rows()

    def fingerprints(self) -> dict[str, str]:
        """Checksum of all rows."""
        return {f"{self.name}/{self.files[0]}": _digest(self._values)}


def _primer_rows() -> Iterator[dict[str, str]]:
    for article in articles():
        yield {"text": article}


def _conversation_rows() -> Iterator[dict[str, Any]]:
    for turns in conversations():
        if len(turns) == 2:
            yield _pair(*turns)
        else:
            messages = [
                {"role": ("user", "assistant")[number % 2], "content": content}
                for number, content in enumerate(turns)
            ]
            yield {"prompt": turns[0], "messages": messages, "text": "\n\n".join(turns)}


def _question_rows() -> Iterator[dict[str, str]]:
    for question, *rest in questions_as_text():
        yield {"prompt": question, "text": "\n\n".join((question, *rest))}


def _example_rows(examples: int, seed: int) -> Iterator[dict[str, str]]:
    for example in worked_examples(examples, seed):
        yield _pair(example.prompt, example.response)


def _pair(prompt: str, response: str) -> dict[str, str]:
    return {"prompt": prompt, "response": response, "text": f"{prompt}\n\n{response}"}


def _labels(paths: Sequence[Path], data_root: str) -> list[str]:
    """Names of files that differ and stay the same when the data are moved as a whole.

    A file under `data_root` has its path from there, another one the shortest end of its path
    that no other file has.
    """
    root, *places = (Path(os.path.abspath(path)) for path in (Path(data_root), *paths))  # noqa: PTH100
    under_root = [place for place in places if place.is_relative_to(root)]
    labels = {place: place.relative_to(root).as_posix() for place in under_root}
    inside = Counter(labels.values())
    length = 1
    while unnamed := [place for place in places if place not in labels]:
        ends = {place: Path(*place.parts[-length:]).as_posix() for place in unnamed}
        often = inside + Counter(ends.values())
        labels.update((place, end) for place, end in ends.items() if often[end] == 1)
        length += 1
    return [labels[place] for place in places]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
