"""Documents with their split; and those of a source too small to be split, cut into passages.

Documents are split by a hash of their text. Where that leaves a source without a document to hold
out, or without one to train on, because it has a few alone, its documents are cut at the borders of
paragraphs into passages, and the passages are split by the same hash. Neighbours on one side stay
together, so a book becomes a few long documents and not thousands of short ones.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import NamedTuple

from tallyformer.config.data import TextSource
from tallyformer.data.cleaning import Cleaning, clean_rows
from tallyformer.data.hashing import content_hash, split_number_of_document
from tallyformer.data.rows import Row
from tallyformer.data.sources import RowSource

SHORTEST, LONGEST = 200, 2000
"""Characters of a passage, up to twice as many: a hundredth of the text within these bounds."""
_BORDERS = tuple(map(re.compile, (r"\n\s*\n", r"\n", r"(?<=[.!?])\s", r"[。！？]", r"\s")))
"""Where a passage may end, the best first: paragraph, line, sentence, word."""
_LOOKED_AT = 20
"""A source of more than 20 / `validation_fraction` documents is not a small one: a random split of
so many leaves no side empty (probability e^-20)."""


class Document(NamedTuple):
    """A text that is trained on or held out whole.

    Attributes:
        row: where it comes from.
        text: normalised.
        digest: its identity.
        held_out: whether it belongs to the validation split.
    """

    row: Row
    text: str
    digest: bytes
    held_out: bool


@dataclass(frozen=True)
class SplitSource:
    """How the documents of one source are cleaned and split.

    Attributes:
        cleaning: of all sources.
        passage: characters of a passage; 0 where documents stay whole.
        limit: of 2**64; passages with a lower number are held out.
    """

    cleaning: Cleaning
    passage: int = 0
    limit: int = 0

    @classmethod
    def of(cls, source: RowSource, section: TextSource, cleaning: Cleaning) -> SplitSource:
        """Read a source until it has a document on both sides; a small one to its end.

        Raises:
            DataError: the source cannot be used.
        """
        whole = cls(cleaning)
        fraction = min(cleaning.validation_fraction, 1 - cleaning.validation_fraction)
        most = math.ceil(_LOOKED_AT / fraction)
        sides: set[bool] = set()
        size = 0
        for number, document in enumerate(whole._beginning(source, section), start=1):
            size += len(document.text)
            sides.add(document.held_out)
            if len(sides) == 2 or number > most or document.row.split_key is not None:
                return whole
        cut = replace(whole, passage=max(SHORTEST, min(size // 100, LONGEST)))
        numbers = {
            cut._number(passage)
            for document in whole._beginning(source, section)
            for passage in passages_of(document.text, cut.passage)
        }
        if len(numbers) < 2:
            return whole
        limit = int(cleaning.validation_fraction * 2**64)
        return replace(cut, limit=min(max(limit, min(numbers) + 1), max(numbers)))

    def documents(
        self,
        rows: Iterable[Row],
        files: Sequence[str] | Mapping[int, str],
        field: str,
        dropped: Counter[str],
    ) -> Iterator[Document]:
        """Rows that pass the filters, as documents; see `clean_rows`."""
        for row, text in clean_rows(rows, files, field, self.cleaning, dropped):
            if not self.passage:
                digest = content_hash(text)
                yield Document(row, text, digest, self.cleaning.holds_out(row, digest))
                continue
            passages = passages_of(text, self.passage)
            for held_out, run in groupby(passages, key=lambda p: self._number(p) < self.limit):
                text = "".join(run).strip()
                if text:
                    yield Document(row, text, content_hash(text), held_out)

    def _beginning(self, source: RowSource, section: TextSource) -> Iterator[Document]:
        """The documents up to the source's limits."""
        left = section.max_bytes or math.inf
        rows = islice(source.rows(), section.max_documents)
        for document in self.documents(rows, source.files, source.required[0], Counter()):
            yield document
            left -= len(document.text.encode())
            if left <= 0:
                return

    def _number(self, passage: str) -> int:
        return split_number_of_document(content_hash(passage.strip()), self.cleaning.seed)


def passages_of(text: str, size: int) -> Iterator[str]:
    """Cut a text; the parts joined are the text again.

    Each has `size` to 2 * `size` characters, only a text that is shorter has fewer. It ends behind
    the best border that lies there: of paragraphs, else lines, sentences, words, or where it must.
    """
    begin = 0
    while len(text) - begin > 2 * size:
        window = text[begin + size : begin + 2 * size]
        found = next((m for border in _BORDERS if (m := border.search(window))), None)
        end = begin + size + (found.end() if found else len(window))
        yield text[begin:end]
        begin = end
    yield text[begin:]
