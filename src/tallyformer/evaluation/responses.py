"""Perplexity of held-out responses: only what the assistant says is counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tallyformer.data.batch import Batch
from tallyformer.data.conversations import ConversationBatches, encode_pair
from tallyformer.data.pairs import Pair
from tallyformer.evaluation.perplexity import measure_passages
from tallyformer.progress import progress_bar
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.precision import Precision
from tallyformer.training.validation import TextLoss

Item = TypeVar("Item")


def measure_responses(
    model: Any,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    *,
    context: int,
    batch_size: int,
    precision: Precision,
) -> list[TextLoss]:
    """Cross-entropy of each pair's response and its end-of-text, given the question.

    Pairs are packed into rows, where they do not see each other; the mask is the one that
    fine-tuning trains with.

    Args:
        model: a causal language model on the precision's device.
        pairs: question and response; at least one.
        tokenizer: the model's.
        context: the most ids of a row; longer pairs are shortened as in fine-tuning.
        batch_size: rows computed at once.
        precision: number format of the matrix products.

    Returns:
        One loss a response, in an order that depends on the pairs alone.
    """
    batches = ConversationBatches(
        [encode_pair(tokenizer, pair, context) for pair in pairs],
        context=context,
        batch_size=batch_size,
        seed=0,
        pad_id=tokenizer.pad_id,
        shuffle=False,
    )
    count = batches.batches_per_epoch
    with progress_bar("responses", count * batches.tokens_per_batch, "tok") as bar:

        def every() -> Iterator[Batch]:
            for index in range(count):
                yield batches.batch(index)
                bar.update(batches.tokens_per_batch)

        return measure_passages(model, every(), tokenizer.token_bytes(), precision=precision)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, evenly spread over all of them, in their order."""
    taken = min(count, len(items))
    return [items[number * len(items) // taken] for number in range(taken)]
