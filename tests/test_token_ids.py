"""What is not an id of the vocabulary is refused by everything that takes ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tallyformer.errors import TallyFormerError
from tallyformer.quoting import quoted
from tallyformer.token_ids import as_id, checked_ids
from tallyformer.tokenizer import Tokenizer

NO_IDS = [
    -1,
    10**30,
    True,
    False,
    1.0,
    1.5,
    "1",
    b"1",
    None,
    10**5000,  # more digits than Python writes out
    [1],
    np.float32(1),
    np.bool_(True),
    np.array([1, 2]),
    torch.tensor(1.0),
    torch.tensor([1, 2]),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["A bond pays interest."], 270)


@pytest.mark.parametrize("bad", NO_IDS, ids=quoted)
def test_what_is_no_id_is_refused_wherever_text_is_made_of_ids(
    tokenizer: Tokenizer, bad: Any
) -> None:
    for take in (
        lambda: tokenizer.decode([1, bad]),
        lambda: tokenizer.decode([1, bad], skip_control=False),
        lambda: tokenizer.stream_decoder().push(bad),
    ):
        with pytest.raises(TallyFormerError, match="is not an id of the vocabulary") as caught:
            take()
        assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


def test_the_first_id_behind_the_vocabulary_is_refused_and_its_place_named(
    tokenizer: Tokenizer,
) -> None:
    last = tokenizer.vocab_size - 1
    assert tokenizer.decode([last]) == tokenizer.stream_decoder().push(last)
    with pytest.raises(ValueError, match=f"ids: {last + 1} at place 2 .* from 0 to {last}"):
        tokenizer.decode([0, 1, last + 1])


@pytest.mark.parametrize("bad", ["12", b"12", {1: 2}, 7, None, np.array(3), torch.tensor(3)])
def test_what_is_no_list_of_ids_is_refused(tokenizer: Tokenizer, bad: Any) -> None:
    with pytest.raises(TallyFormerError, match="must be a list of token ids"):
        tokenizer.decode(bad)


@pytest.mark.parametrize(
    "ids",
    [
        [72, 73],
        (72, 73),
        iter([72, 73]),
        np.array([72, 73]),
        np.array([72, 73], dtype=np.uint16),
        torch.tensor([72, 73]),
        [np.int64(72), torch.tensor(73)],
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_whole_numbers_of_every_kind_are_ids(tokenizer: Tokenizer, ids: Any) -> None:
    assert checked_ids(ids, 270) == [72, 73]


def test_a_whole_number_stays_what_it_is() -> None:
    assert as_id(np.int32(5)) == 5 and type(as_id(np.int32(5))) is int
