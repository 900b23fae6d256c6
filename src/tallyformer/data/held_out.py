"""Which pairs fine-tuning holds out.

The unit of the split is what a pair's answer is read from: its context, or without one its
prompt. All pairs of a unit stand on one side, so no passage that was trained on is measured, and
a question that is asked of many passages ("What is the total revenue?") does not tie them
together. Each unit's number in [0, 2**64) depends on its text and the seed alone; what is below
the fraction is held out.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallyformer.data.hashing import plain_text, split_number


def units_of(texts: Sequence[tuple[str, str]]) -> list[str]:
    """The unit of each pair of one source.

    A context that all pairs of the source share, under several prompts, is an instruction or the
    only passage there is; it tells no pairs apart, so there the prompt is the unit.

    Args:
        texts: context ("" if there is none) and prompt of each pair. They count as equal if they
            differ in case and white space only.
    """
    plain = [(plain_text(context), plain_text(prompt)) for context, prompt in texts]
    contexts, prompts = ({pair[side] for pair in plain} for side in (0, 1))
    shared = len(contexts) == 1 and len(prompts) > 1
    return [prompt if shared or not context else context for context, prompt in plain]


def held_out(units: Sequence[str], *, fraction: float, seed: int) -> list[bool]:
    """Whether each pair is held out.

    Of two or more units at least one is held out, that with the smallest number, and at least
    one is trained on. A single unit is trained on. What is held out at a fraction is held out at
    every larger one.
    """
    numbers = {unit: split_number(unit, seed) for unit in set(units)}
    if len(numbers) < 2:
        return [False] * len(units)
    first, last = min(numbers.values()), max(numbers.values())
    limit = fraction * 2**64
    return [(numbers[u] < limit or numbers[u] == first) and numbers[u] != last for u in units]
