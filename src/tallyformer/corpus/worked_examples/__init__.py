"""Worked examples of finance arithmetic, made from a seed, with right answers.

    example.py        Example, and how an answer is looked for in a text
    numbers.py        the random numbers of one problem, rounding and how numbers are written
    generator.py      the two streams: training and held out
    interest.py loans.py ratios.py returns.py bonds.py currency.py depreciation.py business.py
    journal.py        the kinds of problem, one function each

All arithmetic is exact decimal arithmetic; the last step rounds half up, amounts to cents and
percentages and ratios to two decimals. The same seed gives the same text on every machine.
"""

from tallyformer.corpus.worked_examples.example import Example, contains_answer
from tallyformer.corpus.worked_examples.generator import held_out_examples, worked_examples

__all__ = ["Example", "contains_answer", "held_out_examples", "worked_examples"]
