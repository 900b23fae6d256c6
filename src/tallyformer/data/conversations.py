"""Pairs and conversations as training rows: whole ones side by side, only responses learnt.

B rows of a batch, T positions of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tallyformer.data.batch import IGNORED, Batch
from tallyformer.data.packing import pack_rows
from tallyformer.data.pairs import Pair
from tallyformer.errors import DataError
from tallyformer.tokenizer import Tokenizer

PROMPT_SHARE = 4
"""A long response may push the prompt down to 1/4 of the row, not further."""


@dataclass(frozen=True)
class Conversation:
    """An encoded pair.

    Attributes:
        id: where it was read.
        ids: `<|user|> prompt <|assistant|> response<|endoftext|>` and so on, at most T + 1.
        trained: for each id, whether it is predicted; the responses and their end-of-text.
        prompt_cut: ids taken from the beginning of context and prompt.
        response_cut: ids taken from the end of the response; then no end-of-text is trained.
        turns_cut: whole turns, each a prompt and a response, taken from the beginning.
    """

    id: str
    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    prompt_cut: int = 0
    response_cut: int = 0
    turns_cut: int = 0

    @property
    def positions(self) -> int:
        """Places in a row: every id but the last is an input."""
        return len(self.ids) - 1


def encode_pair(tokenizer: Tokenizer, pair: Pair, context: int) -> Conversation:
    """Encode a pair, or a conversation, so that it fits a row.

    The oldest turns of a conversation that is too long are left out, whole; the system message
    stays. When the last turn alone is too long, its prompt is shortened from its beginning
    (first the context that stands before it), so that the end of the question stays. A quarter
    of the row is kept for the prompt; only a response that does not fit the rest is cut at its
    end, and then nothing teaches the model to stop there.

    Args:
        tokenizer: with the chat format.
        pair: prompts and responses, not empty.
        context: T, inputs of a row, at least 8.
    """
    turns = [pair.turns[n : n + 2] for n in range(0, len(pair.turns), 2)]
    encoded = _encoded(tokenizer, pair.system, turns[-1:])
    if len(encoded[0]) > context + 1:
        return _shortened(tokenizer, pair, encoded, context)
    left_out = len(turns) - 1
    while left_out:
        longer = _encoded(tokenizer, pair.system, turns[left_out - 1 :])
        if len(longer[0]) > context + 1:
            break
        encoded, left_out = longer, left_out - 1
    ids, trained = encoded
    return Conversation(pair.id, tuple(ids), tuple(trained), turns_cut=left_out)


def _encoded(
    tokenizer: Tokenizer, system: str, turns: Sequence[Sequence[str]]
) -> tuple[list[int], list[bool]]:
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return tokenizer.encode_chat_with_mask(messages)


def _shortened(
    tokenizer: Tokenizer, pair: Pair, encoded: tuple[list[int], list[bool]], context: int
) -> Conversation:
    """The last turn alone, cut to the row's length."""
    ids, trained = encoded
    answer = trained.index(True)
    prompt, response = ids[1 : answer - 1], ids[answer:]
    excess = len(ids) - (context + 1)
    kept = max(len(prompt) - excess, min(len(prompt), (context + 1) // PROMPT_SHARE))
    room = context + 1 - 2 - kept
    prompt_cut, response_cut = len(prompt) - kept, max(0, len(response) - room)
    first = tokenizer.system_length(prompt, pair.system)
    if first > kept // 2:  # too long to stay
        first = 0
    prompt, response = prompt[:first] + prompt[first + prompt_cut :], response[:room]
    return Conversation(
        pair.id,
        (tokenizer.user_id, *prompt, tokenizer.assistant_id, *response),
        (False,) * (len(prompt) + 2) + (True,) * len(response),
        prompt_cut,
        response_cut,
        len(pair.turns) // 2 - 1,
    )


def truncations(conversations: Iterable[Conversation]) -> dict[str, int]:
    """How many conversations lost a part of the prompt, and how many of the response."""
    cuts = [(c.prompt_cut > 0, c.response_cut > 0) for c in conversations]
    return {
        "prompts_shortened": sum(prompt for prompt, _ in cuts),
        "responses_cut": sum(response for _, response in cuts),
    }


class ConversationBatches:
    """Whole conversations packed into rows (a `BatchSource`).

    Attention stays within a conversation. The rest of a row is padding with label -100.

    Args:
        conversations: encoded pairs, none longer than a row.
        context: T, inputs of a row.
        batch_size: B, rows of a batch.
        seed: decides which conversations share a row, another way in each epoch, and their order.
        pad_id: fills the rest of a row.
        shuffle: False keeps one packing and order for all epochs; the last batch is then filled
            up with rows of padding, where otherwise it continues with the next epoch.

    Raises:
        DataError: there is no conversation.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        context: int,
        batch_size: int,
        seed: int,
        pad_id: int,
        shuffle: bool = True,
    ) -> None:
        if not conversations:
            raise DataError(
                "sft: no conversation is left. Give more pairs, or change sft.validation_fraction"
            )
        self._conversations = conversations
        self._lengths = np.array([c.positions for c in conversations])
        self._context = context
        self._batch_size = batch_size
        self._seed = seed
        self._pad_id = pad_id
        self._shuffle = shuffle
        self._packed: dict[int, list[list[int]]] = {}
        self._rows_per_epoch = len(self._packing(0))

    @property
    def batches_per_epoch(self) -> int:
        """Batches that hold every conversation once."""
        return -(-self._rows_per_epoch // self._batch_size)

    @property
    def tokens_per_batch(self) -> int:
        """B * T, padding included."""
        return self._batch_size * self._context

    @property
    def utilisation(self) -> float:
        """Share of all positions that are not padding."""
        return float(self._lengths.sum()) / (self._rows_per_epoch * self._context)

    def batch(self, index: int) -> Batch:
        """Rows [index * B, index * B + B) of the endless run."""
        shape = (self._batch_size, self._context)
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        segments = np.zeros(shape, dtype=np.int32)
        for row, members in enumerate(self._rows(index)):
            begin = 0
            for number, member in enumerate(members, start=1):
                conversation = self._conversations[member]
                end = begin + conversation.positions
                ids[row, begin:end] = conversation.ids[:-1]
                target = np.array(conversation.ids[1:])
                labels[row, begin:end] = np.where(conversation.trained[1:], target, IGNORED)
                segments[row, begin:end] = number
                begin = end
        return Batch(*(torch.from_numpy(a) for a in (ids, labels, segments)))

    def documents(self, index: int) -> list[str]:
        """Names of the pairs in a batch."""
        return [self._conversations[m].id for row in self._rows(index) for m in row]

    def _rows(self, index: int) -> list[list[int]]:
        first = index * self._batch_size
        if not self._shuffle:
            return self._packing(0)[first : first + self._batch_size]
        places = range(first, first + self._batch_size)
        return [self._packing(p // self._rows_per_epoch)[p % self._rows_per_epoch] for p in places]

    def _packing(self, epoch: int) -> list[list[int]]:
        if epoch not in self._packed:
            for old in [e for e in self._packed if abs(e - epoch) > 1]:
                del self._packed[old]
            key = (self._seed, epoch) if self._shuffle else None
            self._packed[epoch] = pack_rows(self._lengths, self._context, key)
        return self._packed[epoch]
