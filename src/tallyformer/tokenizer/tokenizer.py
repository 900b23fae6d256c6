"""The tokenizer: text to ids and back, and the chat format."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer as Backend

from tallyformer.artifacts.atomic import atomic_file, write_json
from tallyformer.errors import UsageError
from tallyformer.token_ids import checked_id, checked_ids
from tallyformer.tokenizer import chat
from tallyformer.tokenizer.byte_level import (
    bulk_encoder,
    bytes_of_ids,
    canonical,
    is_gpt2_kind,
    merges_of,
)
from tallyformer.tokenizer.chat import ControlIds
from tallyformer.tokenizer.loading import load_backend
from tallyformer.tokenizer.lossless import check_lossless
from tallyformer.tokenizer.stream import StreamDecoder
from tallyformer.tokenizer.training import train_backend

if TYPE_CHECKING:
    import tiktoken

_LONG_TEXT = 8192
"""Characters from which encoding takes so long that other threads must not wait for it."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Tokenizer:
    """A byte-level BPE with the control tokens `<|endoftext|> <|pad|> <|user|> <|assistant|>`.

    Every text has ids, and decoding them gives the text back. No text gets a control id, not
    even one that spells a control token: those ids come from `encode_chat` and from the
    `..._id` attributes alone. Lone surrogates, which UTF-8 cannot express, become U+FFFD.

    Attributes:
        vocab_size: number of ids, control tokens included.
        control_ids: ids that stand for no text.
    """

    def __init__(self, backend: Backend, name: str = "tokenizer") -> None:
        self._backend = backend
        state = self._state()
        check_lossless(state, name)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.control_ids = frozenset(int(t["id"]) for t in state["added_tokens"] if t["special"])
        self._control = ControlIds(*(_known_id(backend, t) for t in chat.CONTROL_TOKENS))
        self._spelled_bytes_of_id = bytes_of_ids(state, self.vocab_size)

    @classmethod
    def from_pretrained(cls, folder: str | Path, revision: str | None = None) -> Tokenizer:
        """Load a folder with tokenizer.json, or vocab.json and merges.txt; or a hub name.

        Control tokens that are missing are appended to the vocabulary.

        Args:
            folder: which.
            revision: commit, tag or branch of a hub name; None is its newest state.

        Raises:
            TokenizerError: it is missing, damaged, out of reach, no byte-level BPE, or one that
                does not give every text back or could give a text a control id.
        """
        return cls(load_backend(folder, revision), str(folder))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a vocabulary of exactly `vocab_size` ids: 256 bytes, merges, control tokens.

        Raises:
            TokenizerError: the text does not support this many ids.
            UsageError: a text is not a `str`.
        """
        return cls(train_backend((_utf8(t) for t in texts), vocab_size))

    def save(self, folder: Path, model_max_length: int | None = None) -> list[Path]:
        """Write a folder that transformers' `AutoTokenizer` loads without our code.

        It pads on the left, so that `model.generate()` continues where each row of a batch ends.

        Args:
            folder: made if it is not there.
            model_max_length: the model's context length, recorded for other programs.

        Returns:
            The files written.
        """
        state = self._state()
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": chat.END_OF_TEXT,
            "eos_token": chat.END_OF_TEXT,
            "pad_token": chat.PAD,
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
        }
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        paths = [folder / name for name in TOKENIZER_FILES]
        write_json(paths[0], state)
        write_json(paths[1], config)
        with atomic_file(paths[2], "w") as file:
            file.write(self.chat_template())
        return paths

    def chat_template(self, *, training_marks: bool = True) -> str:
        """The Jinja template of the chat format, for other programs.

        Args:
            training_marks: with transformers' `generation` blocks, which other Jinja does not know.
        """
        tokens = [t["content"] for t in self._state()["added_tokens"] if t["special"]]
        return chat.chat_template(tokens, training_marks=training_marks)

    def gpt2_merges(self) -> list[tuple[str, str]] | None:
        """The merges, first to last, if text is cut as GPT-2 does and joined by them alone."""
        state = self._state()
        return merges_of(state["model"]) if is_gpt2_kind(state) else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides ids; equal for a saved and loaded copy."""
        return hashlib.sha256(canonical(self._state())).hexdigest()

    @property
    def eot_id(self) -> int:
        """Id of `<|endoftext|>`, which ends documents and answers."""
        return self._control.eot

    @property
    def pad_id(self) -> int:
        """Id of `<|pad|>`."""
        return self._control.pad

    @property
    def user_id(self) -> int:
        """Id of `<|user|>`."""
        return self._control.user

    @property
    def assistant_id(self) -> int:
        """Id of `<|assistant|>`."""
        return self._control.assistant

    def token_to_id(self, token: str) -> int | None:
        """Id of a token in the vocabulary's spelling, or None."""
        token_id: int | None = self._backend.token_to_id(token)
        return token_id

    def spellings(self) -> list[str | None]:
        """How the vocabulary writes each id; None for an id that is not used."""
        return [self._backend.id_to_token(number) for number in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, never a control id.

        Raises:
            UsageError: it is not a `str`.
        """
        given = _utf8(text)
        if len(given) < _LONG_TEXT:
            short: list[int] = self._backend.encode(given, add_special_tokens=False).ids
            return short
        # The library lets other threads run only while it encodes several texts.
        [encoded] = self._backend.encode_batch_fast([given], add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The same ids as `encode`, faster on long text; uint32 (N,).

        Raises:
            UsageError: it is not a `str`.
        """
        if self._bulk is None or not isinstance(text, str):
            return np.asarray(self.encode(text), dtype=np.uint32)
        try:
            return np.asarray(self._bulk.encode_to_numpy(text), dtype=np.uint32)
        except ValueError:  # a run of white space too long for its regular expression
            return np.asarray(self.encode(text), dtype=np.uint32)

    def decode(self, ids: Iterable[int], skip_control: bool = True) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD.

        Args:
            ids: any ids of the vocabulary.
            skip_control: leave control tokens out instead of spelling them.

        Raises:
            InvalidIdError: one of them is not an id of the vocabulary.
        """
        table = self._bytes_of_id if skip_control else self._spelled_bytes_of_id
        return b"".join(table[i] for i in checked_ids(ids, len(table))).decode(
            "utf-8", errors="replace"
        )

    def stream_decoder(self) -> StreamDecoder:
        """A decoder that takes one id at a time."""
        return StreamDecoder(self._bytes_of_id)

    def bytes_of(self, token_id: int) -> bytes:
        """UTF-8 bytes that an id stands for; of a control token its spelling.

        Raises:
            InvalidIdError: it is not an id of the vocabulary.
        """
        table = self._spelled_bytes_of_id
        return table[checked_id(token_id, len(table))]

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each id stands for, int32 (V,); 0 for control tokens."""
        return np.array([len(b) for b in self._bytes_of_id], dtype=np.int32)

    def character_from(self, ids: Sequence[int], place: int) -> int:
        """The first place, at `place` or after it, where a character begins, or the end of `ids`.

        A token may hold a part of a character; what is cut there is whole.
        """
        while place < len(ids) and _inside_character(self._bytes_of_id[ids[place]]):
            place += 1
        return place

    def character_before(self, ids: Sequence[int], place: int) -> int:
        """The last place, at `place` or before it, where a character begins, or the end."""
        while 0 < place < len(ids) and _inside_character(self._bytes_of_id[ids[place]]):
            place -= 1
        return place

    def system_length(self, ids: Sequence[int], system: str) -> int:
        """How many of the first ids of a user's content spell the system message before it.

        Args:
            ids: of the first content, as `encode_chat` gives them between its control tokens.
            system: stripped; "" if there is none.
        """
        left = len(f" {system}{chat.AFTER_SYSTEM}".encode()) if system else 0
        place = 0
        while left > 0 and place < len(ids):
            left -= len(self._bytes_of_id[ids[place]])
            place += 1
        return place

    def encode_chat(self, messages: Any, add_generation_prompt: bool = False) -> list[int]:
        """Ids of a conversation; contents can never become control tokens.

        Args:
            messages: {"role", "content"}: an optional system message, then user and
                assistant in turn; or what else `read_messages` takes.
            add_generation_prompt: end with `<|assistant|>`, where the model continues.

        Raises:
            UsageError: a role is unknown or out of turn, or these are not messages.
        """
        return chat.encode_turns(messages, self.encode, self._control, add_generation_prompt)[0]

    def encode_chat_with_mask(self, messages: Any) -> tuple[list[int], list[bool]]:
        """Ids of a conversation and, for each, whether it is trained.

        True are the ids of the assistant's text and of its end-of-text, nothing else.
        """
        return chat.encode_turns(messages, self.encode, self._control, False)

    @functools.cached_property
    def _bulk(self) -> tiktoken.Encoding | None:
        tokens = [self._backend.id_to_token(i) for i in range(self.vocab_size)]
        plain = [t for i, t in enumerate(tokens) if i not in self.control_ids]
        return bulk_encoder(
            self._state(), self.control_ids, [self._backend.model.tokenize(t) for t in plain]
        )

    @functools.cached_property
    def _bytes_of_id(self) -> list[bytes]:
        return [
            b"" if i in self.control_ids else spelled
            for i, spelled in enumerate(self._spelled_bytes_of_id)
        ]

    def _state(self) -> dict[str, Any]:
        """What tokenizer.json holds. It is large and seldom asked for, so it is not kept."""
        state: dict[str, Any] = json.loads(self._backend.to_str())
        return state


def _inside_character(spelled: bytes) -> bool:
    """Whether a token begins with a byte that continues a character of UTF-8."""
    return spelled[:1] != b"" and spelled[0] & 0xC0 == 0x80


def _known_id(backend: Backend, token: str) -> int:
    """Id of a token that is in the vocabulary."""
    token_id = backend.token_to_id(token)
    assert token_id is not None, token
    return int(token_id)


def _utf8(text: str) -> str:
    """`text` with lone surrogates replaced, as tiktoken does."""
    if not isinstance(text, str):
        raise UsageError(
            f"tokenizer: a text has the type {type(text).__name__}. Give str; decode bytes first, "
            "and leave missing values out"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
