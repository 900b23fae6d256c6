"""A byte-level BPE from a local folder or from the Hugging Face hub."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.artifacts.hub_reach import Hub
from tallyformer.artifacts.json_files import read_json
from tallyformer.artifacts.paths import usable_path
from tallyformer.errors import TokenizerError
from tallyformer.quoting import quoted
from tallyformer.tokenizer.chat import CONTROL_TOKENS

FILES = ("tokenizer.json", "vocab.json", "merges.txt")
_FIX = "Fetch or make it again"
_DOWNLOAD_SECONDS = 300.0
"""Within which the hub delivers a tokenizer, a few megabytes; its client sets no limit in all."""


def load_backend(source: str | Path, revision: str | None = None) -> Backend:
    """The `tokenizers` object of a folder or hub name, ready for this package.

    Args:
        source: which.
        revision: commit, tag or branch of a hub name; None is its newest state.

    Raises:
        TokenizerError: nothing is there, or it is damaged.
        UsageError: it is neither a path nor a name.
    """
    return make_ready(_read(_folder(source, revision)))


def make_ready(backend: Backend) -> Backend:
    """Add the control tokens that are missing and make text unable to spell one."""
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in CONTROL_TOKENS]
    )
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    # Offsets that include the leading space: the template's training mask is found by them.
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def byte_level_backend(model: models.BPE) -> Backend:
    """GPT-2's pipeline around a BPE model: no normalisation, GPT-2's pattern, bytes."""
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _folder(source: str | Path, revision: str | None) -> Path:
    path = usable_path(source)
    if revision is not None and path.exists():
        raise TokenizerError(f"{path}: is here, so it has no revision {revision!r}. Leave it out")
    if path.is_dir():
        return path
    if path.exists():
        raise TokenizerError(f"{path}: is a file. Give the folder that holds {FILES[0]}")
    name = str(source)
    if not could_be_hub_name(name):
        raise TokenizerError(f"{path}: no such folder. Give a tokenizer folder or a hub name")
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    reason = Hub().problem(name, revision, kind="model", cached=FILES[:2])
    try:
        if reason is None:
            return _delivered(name, revision)
    except Exception as error:  # the hub client raises errors of several libraries
        reason = " ".join(str(error).split())[:200]
    raise TokenizerError(
        f"{name}: no such local folder, and the hub did not deliver it ({reason}). Give a "
        f"local folder with {FILES[0]}, or with {FILES[1]} and {FILES[2]}"
    )


def _delivered(name: str, revision: str | None) -> Path:
    """The folder of the local cache with the tokenizer's files, downloaded where they are missing.

    Raises:
        Exception: whatever the hub's client raises, or the time is over.
    """
    done: list[Path | Exception] = []

    def download() -> None:
        try:
            done.append(_download(name, revision))
        except Exception as error:
            done.append(error)

    # A thread that is left alone, as the client cannot be told to stop: it ends with the process.
    thread = threading.Thread(target=download, daemon=True)
    thread.start()
    thread.join(_DOWNLOAD_SECONDS)
    if not done:
        raise TimeoutError(f"not complete after {_DOWNLOAD_SECONDS:.0f} s")
    if isinstance(done[0], Exception):
        raise done[0]
    return done[0]


def _download(name: str, revision: str | None) -> Path:
    """One file after the other: the hub's own download of several waits for its threads at exit."""
    from huggingface_hub import errors, hf_hub_download  # keeps start-up fast

    found: list[str] = []
    absent: Exception | None = None
    for file in FILES:
        try:
            found.append(hf_hub_download(name, file, revision=revision))
        except errors.EntryNotFoundError as error:
            absent = error
        if found and file == FILES[0]:
            break
    if absent and not found:
        raise absent
    return Path(found[0]).parent


def _read(folder: Path) -> Backend:
    whole, vocabulary, merges = (folder / name for name in FILES)
    try:
        with without_panic():
            if os.path.lexists(whole):
                return _read_whole(whole)
            if vocabulary.is_file() and merges.is_file():
                return byte_level_backend(_read_bpe(vocabulary, merges))
    except TokenizerError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{folder}: the tokenizer is damaged ({reason}). {_FIX}") from None
    raise TokenizerError(
        f"{folder}: holds neither {FILES[0]} nor {FILES[1]} with {FILES[2]}. "
        "Give a tokenizer folder"
    )


def _read_whole(file: Path) -> Backend:
    """Of a tokenizer.json. It is parsed here too, which takes time, only if there is a reason."""
    if _may_panic(file):
        check_json(file)
    try:
        return Backend.from_file(str(file))
    except Exception:  # tokenizers raises bare Exception
        check_json(file)  # says more, if it is what is wrong
        raise


_SUSPECT = (b"Precompiled", b"FixedLength", *(b"\\u00%d" % first for first in range(2, 8)))
"""A file without them holds nothing that `_panics` looks for, however it may be escaped."""
_NO_PREFIX = re.compile(rb'"\s*:\s*null\b')
_PREFIX = b"continuing_subword_prefix"


def _may_panic(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError:
        return True
    after = content.split(_PREFIX)[1:]
    return any(text in content for text in _SUSPECT) or not all(map(_NO_PREFIX.match, after))


def check_json(file: Path) -> None:
    """Refuse a tokenizer.json that is none, or one on which `tokenizers` would panic.

    A panic is told in several lines on standard error, whatever its caller does.

    Raises:
        TokenizerError: what is wrong with it.
    """
    problems = list(_panics(read_json(file, fix=_FIX, error=TokenizerError)))
    if problems:
        raise TokenizerError(f"{file}: cannot be used: {'; '.join(problems)}. {_FIX}")


def _panics(state: Mapping[str, Any]) -> Iterator[str]:
    model = state.get("model")
    if isinstance(model, dict) and model.get("continuing_subword_prefix") and model.get("merges"):
        yield f"its BPE has continuing_subword_prefix {quoted(model['continuing_subword_prefix'])}"
    for step in _dictionaries([state.get("normalizer"), state.get("pre_tokenizer")]):
        if step.get("type") == "Precompiled":
            yield "its normalizer Precompiled changes text"
        if step.get("type") == "FixedLength" and not step.get("length"):
            yield "its pre-tokenizer FixedLength has the length 0"


def _dictionaries(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _dictionaries(inner)


@contextlib.contextmanager
def without_panic() -> Iterator[None]:
    """A panic of a library that is written in Rust, which is not an `Exception`, becomes one.

    Raises:
        ValueError: there was a panic.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise ValueError(str(error)) from None


def _read_bpe(vocabulary: Path, merges: Path) -> models.BPE:
    vocab, pairs = models.BPE.read_file(str(vocabulary), str(merges))
    expected = 256 + len(pairs)
    plain = len([t for t in vocab if t not in CONTROL_TOKENS])
    if plain != expected:
        raise TokenizerError(
            f"{vocabulary}: {plain} tokens, but {merges.name} makes {expected} of them "
            f"(256 bytes and {len(pairs)} merges). The two files do not belong together; "
            "fetch both again"
        )
    return models.BPE(vocab=vocab, merges=pairs)
