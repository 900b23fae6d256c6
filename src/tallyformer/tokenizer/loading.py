"""A byte-level BPE from a local folder or from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from tallyformer.artifacts.hub_names import could_be_hub_name
from tallyformer.errors import TokenizerError
from tallyformer.tokenizer.chat import CONTROL_TOKENS

FILES = ("tokenizer.json", "vocab.json", "merges.txt")


def load_backend(source: str | Path, revision: str | None = None) -> Backend:
    """The `tokenizers` object of a folder or hub name, ready for this package.

    Args:
        source: which.
        revision: commit, tag or branch of a hub name; None is its newest state.

    Raises:
        TokenizerError: nothing is there, or it is damaged.
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
    path = Path(source)
    if revision is not None and path.exists():
        raise TokenizerError(f"{path}: is here, so it has no revision {revision!r}. Leave it out")
    if path.is_dir():
        return path
    if path.exists():
        raise TokenizerError(f"{path}: is a file. Give the folder that holds {FILES[0]}")
    name = str(source)
    if not could_be_hub_name(name):
        raise TokenizerError(f"{path}: no such folder. Give a tokenizer folder or a hub name")
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    import huggingface_hub  # keeps start-up fast where everything is local

    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES))
        )
    except Exception as error:  # the hub client raises errors of several libraries
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(
            f"{name}: no such local folder, and the hub did not deliver it ({reason}). Give a "
            f"local folder with {FILES[0]}, or with {FILES[1]} and {FILES[2]}"
        ) from None


def _read(folder: Path) -> Backend:
    whole, vocabulary, merges = (folder / name for name in FILES)
    try:
        if whole.is_file():
            return Backend.from_file(str(whole))
        if vocabulary.is_file() and merges.is_file():
            return byte_level_backend(_read_bpe(vocabulary, merges))
    except TokenizerError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(
            f"{folder}: the tokenizer is damaged ({' '.join(str(error).split())[:200]}). "
            "Fetch or make it again"
        ) from None
    raise TokenizerError(
        f"{folder}: holds neither {FILES[0]} nor {FILES[1]} with {FILES[2]}. "
        "Give a tokenizer folder"
    )


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
