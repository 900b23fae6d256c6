"""Conversations one after another in one, so that a model meets questions that change the subject.

A model that is tuned on single questions, and on follow-ups alone, takes the second question of a
chat for a follow-up of the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallyformer.data.conversations import Conversation, encode_pair
from tallyformer.data.pairs import Pair
from tallyformer.keyed_random import permutation, random_numbers
from tallyformer.tokenizer import Tokenizer


def training_conversations(
    tokenizer: Tokenizer, pairs: Sequence[Pair], *, context: int, most: int, seed: int
) -> list[Conversation]:
    """Encode pairs, and join those that begin without a system message.

    Args:
        tokenizer: with the chat format.
        pairs: prompts and responses, not empty.
        context: T, inputs of a row.
        most: pairs in one conversation.
        seed: decides which are joined.
    """
    encoded = [encode_pair(tokenizer, pair, context) for pair in pairs]
    alone = [c for c, pair in zip(encoded, pairs, strict=True) if pair.system]
    others = [c for c, pair in zip(encoded, pairs, strict=True) if not pair.system]
    return [*alone, *join_conversations(others, most=most, context=context, seed=seed)]


def join_conversations(
    conversations: Sequence[Conversation], *, most: int, context: int, seed: int
) -> list[Conversation]:
    """Join 1 to `most` conversations each, in a shuffled order, as far as they fit a row.

    Every conversation is in exactly one of the results, whole: ids and mask are those of the same
    turns encoded together.

    Args:
        conversations: encoded ones without a system message.
        most: conversations in one, at least 1; each number up to it is as likely.
        context: T, inputs of a row.
        seed: decides the order and the numbers.
    """
    if most == 1:
        return list(conversations)
    wanted = random_numbers(len(conversations), seed, "joined") % most + 1
    joined: list[Conversation] = []
    group: list[Conversation] = []
    for place in permutation(len(conversations), seed, "joining").tolist():
        fits = sum(len(c.ids) for c in (*group, conversations[place])) <= context + 1
        if group and (len(group) >= wanted[len(joined)] or not fits):
            joined.append(_as_one(group))
            group = []
        group.append(conversations[place])
    return [*joined, _as_one(group)] if group else joined


def _as_one(group: Sequence[Conversation]) -> Conversation:
    return Conversation(
        " + ".join(c.id for c in group),
        tuple(i for c in group for i in c.ids),
        tuple(t for c in group for t in c.trained),
        sum(c.prompt_cut for c in group),
        sum(c.response_cut for c in group),
        sum(c.turns_cut for c in group),
    )
