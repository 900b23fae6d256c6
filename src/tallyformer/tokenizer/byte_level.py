"""GPT-2's spelling of bytes, and the fast encoder built from the same merges.

A byte-level BPE writes each of the 256 bytes as one printable character, so that a vocabulary is
a list of ordinary strings (Radford et al. 2019, section 2.2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tallyformer.packages import missing

if TYPE_CHECKING:
    import tiktoken

# GPT-2's pre-tokenizer: contractions, words, numbers and the rest, each with one leading space.
# The possessive quantifiers match the same text without backtracking.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def byte_of_character() -> dict[str, int]:
    """The byte that each of the 256 characters of a byte-level vocabulary stands for.

    Printable Latin-1 characters stand for themselves; the other bytes take, in order, the
    characters from U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in set(printable)]
    table = {chr(b): b for b in printable}
    table.update({chr(0x100 + n): b for n, b in enumerate(hidden)})
    return table


def bytes_of_ids(state: Mapping[str, Any], vocab_size: int) -> list[bytes]:
    """The UTF-8 bytes that each id spells; control tokens spell themselves.

    Args:
        state: the parsed `tokenizer.json`, one that `check_lossless` accepts.
        vocab_size: ids, added tokens included.
    """
    added = {int(t["id"]): t["content"].encode() for t in state["added_tokens"]}
    plain = {token: i for token, i in state["model"]["vocab"].items() if i not in added}
    byte = {ord(character): byte for character, byte in byte_of_character().items()}
    # All tokens at once, as one byte stands for each character: a tenth of the time.
    spelled = "".join(plain).translate(byte).encode("latin-1")
    table, place = [b""] * vocab_size, 0
    for token, i in plain.items():
        table[i] = spelled[place : place + len(token)]
        place += len(token)
    for i, content in added.items():
        table[i] = content
    return table


def bulk_encoder(
    state: Mapping[str, Any], control_ids: frozenset[int], splits: Sequence[Sequence[str]]
) -> tiktoken.Encoding | None:
    """tiktoken's encoder with the same ids; None where they would not be, or it is not installed.

    tiktoken joins the pair whose joint bytes have the lowest id; a BPE joins the pair that comes
    first in its merges. The two agree if ids are the 256 bytes followed by the merges' results
    in order, if every token is what its own bytes encode to, and if no added token is cut out of
    text before the merges.

    Args:
        state: the parsed `tokenizer.json`, one that `check_lossless` accepts.
        control_ids: ids that no text may become.
        splits: what the slow path makes of the spelling of each token, in the order of ids.
    """
    if missing("tiktoken") or not is_gpt2_kind(state):
        return None
    import tiktoken  # for much text alone, which serving does not have

    spelling = [
        s
        for s, i in sorted(state["model"]["vocab"].items(), key=lambda item: item[1])
        if i not in control_ids
    ]
    if not _ids_follow_merges(state["model"], spelling) or any(len(s) != 1 for s in splits):
        return None
    byte = byte_of_character()
    ranks = {bytes(byte[c] for c in s): i for i, s in enumerate(spelling)}
    return tiktoken.Encoding(
        "tallyformer", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )


def is_gpt2_kind(state: Mapping[str, Any]) -> bool:
    """Whether a parsed `tokenizer.json` cuts text as GPT-2's does, and has nothing but merges."""
    model, split = state["model"], state["pre_tokenizer"] or {}
    plain = not any(model.get(k) for k in ("unk_token", "byte_fallback", "ignore_merges"))
    return (
        plain
        and all(t["special"] for t in state["added_tokens"])
        and split.get("type") == "ByteLevel"
        and split.get("use_regex", True)
    )


def _ids_follow_merges(model: Mapping[str, Any], spelling: Sequence[str]) -> bool:
    joined = ["".join(pair) for pair in merges_of(model)]
    alphabet = byte_of_character()
    return (
        len(spelling) == 256 + len(joined)
        and all(s in alphabet for s in spelling[:256])
        and list(spelling[256:]) == joined
        and [model["vocab"][s] for s in spelling] == list(range(len(spelling)))
    )


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a `tokenizer.json` model, which writes them as "a b" or as ["a", "b"]."""
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return [(left, right) for left, right in pairs]


def canonical(state: Mapping[str, Any]) -> bytes:
    """Everything that decides which ids a text gets, in one fixed spelling, for hashing."""
    model = state["model"]
    vocab = sorted(model["vocab"].items(), key=lambda item: item[1])
    parts = [
        {**model, "vocab": vocab, "merges": merges_of(model)},
        state["pre_tokenizer"],
        state["normalizer"],
        sorted(state["added_tokens"], key=lambda token: token["id"]),
    ]
    return json.dumps(parts, ensure_ascii=True, sort_keys=True).encode()
