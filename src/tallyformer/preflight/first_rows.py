"""The first rows of a source, read as the stages will read all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.artifacts.hub_reach import Hub
from tallyformer.config import Recipe
from tallyformer.config.data import PairSource, TextSource
from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.pairs import read_pairs
from tallyformer.data.rows import Row
from tallyformer.data.sources import RowSource, dataset_files, pair_source, text_source
from tallyformer.errors import DataError

_FILES, _ROWS = 8, 3
"""Rows of a file, and files of a source, spread evenly over it."""


def problems_of_first_rows(
    recipe: Recipe, section: TextSource | PairSource, hub: Hub
) -> Iterator[str]:
    """What is wrong with a source, as far as its first rows show it.

    Args:
        section: one whose files are there.
        hub: asked for a data set that is not on this machine.
    """
    try:
        if section.dataset:
            place, _, _ = dataset_files(section, recipe.data_root)
            reason = None if Path(place).is_dir() else _not_on_hub(section, hub)
            if reason:
                yield f"source {section.name!r}: data set {section.dataset!r}: {reason}"
                return
        _read_first_rows(recipe, section)
    except DataError as error:
        yield str(error)


def _not_on_hub(section: TextSource | PairSource, hub: Hub) -> str | None:
    assert section.dataset
    if not could_be_hub_name(section.dataset):
        return "no such folder. Correct the path, or set data_root"
    reason = hub.problem(section.dataset, section.revision, kind="dataset")
    return reason and f"{reason}. Correct the name, or give a local folder or paths"


def _read_first_rows(recipe: Recipe, section: TextSource | PairSource) -> None:
    if isinstance(section, PairSource):
        source = pair_source(section, data_root=recipe.data_root, seed=recipe.seed)
        for first in _first_of_files(source, limited=section.max_pairs is not None):
            for _ in read_pairs(first, section, Counter()):
                pass
        return
    cleaning = Cleaning.of(recipe.prepare, recipe.seed)
    source = text_source(
        section, data_root=recipe.data_root, seed=recipe.seed, max_chars=cleaning.max_chars
    )
    limited = bool(section.max_documents or section.max_bytes)
    for first in _first_of_files(source, limited=limited):
        for _ in clean_rows(first.rows(), first.files, first.required[0], cleaning, Counter()):
            pass


def _first_of_files(source: RowSource, *, limited: bool) -> Iterator[_FirstRows]:
    """The beginning of some files; a source with a limit may end before its second one."""
    count = len(source.files)
    chosen = {0} if limited else {i * count // _FILES for i in range(_FILES)}
    for file in sorted(chosen):
        yield _FirstRows(source, file)


class _FirstRows:
    """The first rows of one file, as a source of their own (a `RowSource`)."""

    sizes: Sequence[int] | None = None
    unit = "rows"
    empty_files: Sequence[str] = ()

    def __init__(self, source: RowSource, file: int) -> None:
        self.name = source.name
        self.files = source.files
        self.required = source.required
        self.optional = source.optional
        self._source = source
        self._file = file

    def rows(self) -> Iterator[Row]:
        """The first ones."""
        return islice(self._source.rows_of_file(self._file), _ROWS)

    def rows_of_file(self, file: int) -> Iterator[Row]:
        """The first ones of the file."""
        assert file == self._file
        return self.rows()

    def fingerprints(self) -> dict[str, str]:
        """Of the whole source."""
        return self._source.fingerprints()
