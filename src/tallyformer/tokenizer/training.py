"""An own byte-level BPE, learnt from text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from tallyformer.child import run_child
from tallyformer.errors import TokenizerError
from tallyformer.tokenizer.chat import CONTROL_TOKENS
from tallyformer.tokenizer.loading import byte_level_backend, make_ready

SMALLEST = 256 + len(CONTROL_TOKENS)
LONGEST_WORD = 256
"""Characters without white space, or of white space, that are learnt from in one piece. Learning
takes time with the square of a word's length; encoding does not."""
# Each run is tried at its beginning alone, so the search takes time with the text's length.
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{LONGEST_WORD + 1},}}|(?<!\s)\s{{{LONGEST_WORD + 1},}}")


def train_backend(texts: Iterable[str], vocab_size: int) -> Backend:
    """Learn merges (Sennrich et al. 2016, algorithm 1, on bytes) and lay ids out like GPT-2's.

    The 256 bytes come first, then the merges in order, then the control tokens.

    Args:
        texts: the training text; read once. Longer words than `LONGEST_WORD` are learnt from in
            pieces.
        vocab_size: all ids, control tokens included; at least 260.

    Raises:
        TokenizerError: the text has too few different pairs for this many ids.
    """
    return _complete(_learn(texts, vocab_size), vocab_size)


def train_backend_in_child(texts: Iterable[str], vocab_size: int, scratch: Path) -> Backend:
    """As `train_backend`, in a process that ends with this one.

    Merges are learnt by one call of native code that no signal reaches, so it must be one that
    can be killed.

    Args:
        scratch: an empty folder that holds the texts meanwhile.
    """
    sample, learnt = scratch / "texts.jsonl", scratch / "learnt.json"
    with sample.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
    done = run_child(_LEARN, [str(vocab_size), str(sample), str(learnt)])
    if done.status:
        raise TokenizerError(
            f"the process that learns the vocabulary died ({done.last_line}). If memory ran out, "
            "lower tokenizer.train_bytes"
        )
    return _complete(Backend.from_file(str(learnt)), vocab_size)


_LEARN = """
import sys
from tallyformer.tokenizer.training import learn_file
learn_file(*sys.argv[1:])
"""


def learn_file(vocab_size: str, sample: str, learnt: str) -> None:
    """What the child of `train_backend_in_child` does."""
    with Path(sample).open(encoding="utf-8") as file:
        _learn(map(json.loads, file), int(vocab_size)).save(learnt)


def _learn(texts: Iterable[str], vocab_size: int) -> Backend:
    if vocab_size < SMALLEST:
        raise ValueError(f"vocab_size {vocab_size} is below {SMALLEST}")
    backend = byte_level_backend(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    backend.train_from_iterator(map(in_short_words, texts), trainer)
    return backend


def _complete(backend: Backend, vocab_size: int) -> Backend:
    """The learnt vocabulary with its control tokens, if it is as large as asked for."""
    reached = backend.get_vocab_size() + len(CONTROL_TOKENS)
    if reached != vocab_size:
        raise TokenizerError(
            f"tokenizer.vocab_size is {vocab_size}, but the text supports only {reached} ids. "
            f"Set tokenizer.vocab_size to at most {reached}, or give more text"
        )
    return make_ready(backend)


def in_short_words(text: str) -> list[str]:
    """The text in pieces without a word of more than `LONGEST_WORD` characters; one as a rule."""
    pieces: list[str] = []
    begin = 0
    for run in _LONG_RUN.finditer(text):
        ends = range(run.start() + LONGEST_WORD, run.end(), LONGEST_WORD)
        for end in ends:
            pieces.append(text[begin:end])
            begin = end
    return [*pieces, text[begin:]]
