"""Which tokenizers give every text ids, the ids their text back, and no text a control id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tallyformer.errors import TokenizerError
from tallyformer.tokenizer.byte_level import byte_of_character, merges_of
from tallyformer.tokenizer.chat import unbreakable

_CUTS = ("ByteLevel", "Digits", "FixedLength", "Punctuation", "Split", "UnicodeScripts")
"""Pre-tokenizers that only cut a text, unless their behaviour is to remove where they cut."""


def check_lossless(state: Mapping[str, Any], where: str) -> None:
    """Refuse a tokenizer that breaks one of the promises of `Tokenizer`.

    Args:
        state: the parsed `tokenizer.json`.
        where: its name, for errors.

    Raises:
        TokenizerError: the message names everything that is in the way.
    """
    kind, decoder = state["model"]["type"], (state["decoder"] or {}).get("type")
    if kind != "BPE" or decoder != "ByteLevel":
        raise TokenizerError(
            f"{where}: not a byte-level BPE (model {kind}, decoder {decoder}). Use GPT-2's "
            "tokenizer, or tokenizer.kind: train"
        )
    problems = [*_text_is_changed(state), *_ids_are_incomplete(state), *_ids_are_forgeable(state)]
    if problems:
        raise TokenizerError(
            f"{where}: cannot be used: {'; '.join(problems)}. Change its tokenizer.json, use "
            "GPT-2's tokenizer, or tokenizer.kind: train"
        )


def _text_is_changed(state: Mapping[str, Any]) -> Iterator[str]:
    """What keeps ids from giving their text back, or a text from having the same ids each time."""
    for normalizer in _parts(state["normalizer"], "normalizers"):
        yield f"its normalizer {normalizer['type']} changes text"
    cuts = list(_parts(state["pre_tokenizer"], "pretokenizers"))
    if [cut["type"] for cut in cuts].count("ByteLevel") != 1:
        yield "its pre-tokenizer does not turn text into bytes exactly once"
    for cut in cuts:
        if cut["type"] not in _CUTS or cut.get("behavior") == "Removed":
            yield f"its pre-tokenizer {cut['type']} removes or changes text"
        if cut.get("add_prefix_space"):
            yield "add_prefix_space puts a space before text"
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if value := state["model"].get(field):
            yield f"its BPE has {field} {value!r}"
    for token in state["added_tokens"]:
        if not token["special"] and (token["lstrip"] or token["rstrip"]):
            yield f"its added token {token['content']!r} swallows the spaces beside it"


def _ids_are_incomplete(state: Mapping[str, Any]) -> Iterator[str]:
    vocab, alphabet = state["model"]["vocab"], byte_of_character()
    added = {t["id"]: t["content"] for t in state["added_tokens"]}
    if missing := [c for c in alphabet if c not in vocab]:
        yield f"{len(missing)} of the 256 bytes are not in the vocabulary, so text would be lost"
    plain = [token for token, i in vocab.items() if i not in added]
    if strange := set("".join(plain)) - alphabet.keys():
        foreign = next(token for token in plain if not strange.isdisjoint(token))
        yield f"the token {foreign!r} is not spelled in bytes"
    ids = {*vocab.values(), *added}
    if max(ids) + 1 != len(ids):
        yield f"it has {len(ids)} ids and the highest is {max(ids)}; ids must have no holes"


def _ids_are_forgeable(state: Mapping[str, Any]) -> Iterator[str]:
    """How a text could get a control id, in `encode` or through the chat template."""
    vocab, added = state["model"]["vocab"], state["added_tokens"]
    control = {token["id"] for token in added if token["special"]}
    spelling = {token for token, i in vocab.items() if i in control}
    whole_words = state["model"].get("ignore_merges")
    spelled = {
        left + right for left, right in merges_of(state["model"])
    } | byte_of_character().keys()
    from_text = {vocab[token] for token in spelling if whole_words or token in spelled}
    for token in added:
        if token["id"] in control and token["id"] in from_text:
            yield f"its BPE makes the control token {token['content']!r} from text"
    special = [t["content"] for t in added if t["special"]]
    for content in unbreakable(special, [t["content"] for t in added]):
        yield f"the chat template cannot keep its token {content!r} apart from text"


def _parts(step: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those inside sequences one by one."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for part in step[name]:
        yield from _parts(part, name)
