"""Journal entries. Every entry's debits equal its credits."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from tallyformer.corpus.worked_examples.example import Worked
from tallyformer.corpus.worked_examples.numbers import Draw, amount, number

TRANSACTIONS: dict[str, tuple[str, str, str]] = {
    "buys equipment for {} in cash": ("Equipment", "Cash", "An asset rises and cash falls."),
    "buys inventory for {} on credit": (
        "Inventory",
        "Accounts payable",
        "An asset rises and so does a liability.",
    ),
    "provides services for {} and is paid in cash": (
        "Cash",
        "Service revenue",
        "Cash rises and revenue is earned.",
    ),
    "provides services for {} on account": (
        "Accounts receivable",
        "Service revenue",
        "A claim on the customer rises and revenue is earned.",
    ),
    "pays rent of {} in cash": ("Rent expense", "Cash", "An expense is incurred and cash falls."),
    "pays wages of {} in cash": ("Wages expense", "Cash", "An expense is incurred and cash falls."),
    "borrows {} from the bank": (
        "Cash",
        "Bank loan",
        "Cash rises and so does a liability.",
    ),
    "receives {} from a customer who owed it": (
        "Cash",
        "Accounts receivable",
        "Cash rises and the claim on the customer falls.",
    ),
    "pays a supplier {} that it owed": (
        "Accounts payable",
        "Cash",
        "A liability falls and so does cash.",
    ),
    "receives {} in cash from its owner as capital": (
        "Cash",
        "Owner's equity",
        "Cash rises and so does equity.",
    ),
    "records depreciation of {} on equipment": (
        "Depreciation expense",
        "Accumulated depreciation",
        "An expense is incurred and the asset's book value falls.",
    ),
}


def journal_entry(draw: Draw) -> Worked:
    """An entry with one debit and one credit."""
    transaction = draw.word("transaction", tuple(TRANSACTIONS))
    value = draw.number("amount", 100, 9900, 50)
    debit, credit, why = TRANSACTIONS[transaction]
    event = transaction.format(f"${number(value)}")
    return Worked(
        prompts=_questions(event),
        steps=why,
        conclusion="The entry is: ",
        answer=_entry([(debit, value)], [(credit, value)]),
    )


def split_entry(draw: Draw) -> Worked:
    """A purchase paid partly in cash, the rest owed: one debit, two credits."""
    asset = draw.word("asset", ("Equipment", "Inventory", "Furniture", "Vehicles"))
    cash = draw.number("cash", 100, 4900, 100)
    owed = draw.number("owed", 100, 4900, 100)
    event = (
        f"buys {asset.lower()} for ${number(cash + owed)}, paying ${number(cash)} in cash and "
        "owing the rest to the supplier"
    )
    return Worked(
        prompts=_questions(event),
        steps=f"The amount owed is {number(cash + owed)} - {number(cash)} = {amount(owed)}.",
        conclusion="The entry is: ",
        answer=_entry([(asset, cash + owed)], [("Cash", cash), ("Accounts payable", owed)]),
    )


def _questions(event: str) -> tuple[str, ...]:
    return (
        f"What is the journal entry when a company {event}?",
        f"A business {event}. Which journal entry records this?",
        f"Record this transaction with debits and credits: a firm {event}.",
    )


def _entry(debits: Sequence[tuple[str, Decimal]], credits: Sequence[tuple[str, Decimal]]) -> str:
    lines = [f"debit {name} ${amount(value)}" for name, value in debits]
    lines += [f"credit {name} ${amount(value)}" for name, value in credits]
    return ", ".join(lines)


KINDS = {"journal-entry": journal_entry, "journal-entry-split": split_entry}
