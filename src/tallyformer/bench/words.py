"""Prompts of words that nearly every vocabulary of a few thousand ids has as one token each."""

from __future__ import annotations

from tallyformer.keyed_random import RandomStream

_TEXT = """
the of and to in a is that for it was on are with as they be at this have from or had by but some
what there we can out other were all your when up use how said each she which do their time if will
way about many then them would write like so these her long make thing see him two has look more day
could go come did number no most people my over know water than call first who may down side been
now find any new work part take get place made live where after back little only round man year came
show every good me give our under name very through just form much great think say help low line
before turn cause same mean price market bank money value cost rate share company business
"""
WORDS = tuple(_TEXT.split())


def prompt_of_words(count: int, *key: int | str) -> str:
    """So many words between spaces, drawn by the key; other keys give other prompts.

    Args:
        count: 1 or more.
    """
    stream = RandomStream("prompt", *key)
    return " ".join(WORDS[stream.below(len(WORDS))] for _ in range(count))
