"""An own byte-level BPE, learnt from text."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from tallyformer.errors import TokenizerError
from tallyformer.tokenizer.chat import CONTROL_TOKENS
from tallyformer.tokenizer.loading import byte_level_backend, make_ready

SMALLEST = 256 + len(CONTROL_TOKENS)


def train_backend(texts: Iterable[str], vocab_size: int) -> Backend:
    """Learn merges (Sennrich et al. 2016, algorithm 1, on bytes) and lay ids out like GPT-2's.

    The 256 bytes come first, then the merges in order, then the control tokens.

    Args:
        texts: the training text; read once.
        vocab_size: all ids, control tokens included; at least 260.

    Raises:
        TokenizerError: the text has too few different pairs for so many ids.
    """
    if vocab_size < SMALLEST:
        raise ValueError(f"vocab_size {vocab_size} is below {SMALLEST}")
    backend = byte_level_backend(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    backend.train_from_iterator(texts, trainer)
    reached = backend.get_vocab_size() + len(CONTROL_TOKENS)
    if reached != vocab_size:
        raise TokenizerError(
            f"tokenizer.vocab_size is {vocab_size}, but the text supports only {reached} ids. "
            f"Set tokenizer.vocab_size to at most {reached}, or give more text"
        )
    return make_ready(backend)
