"""In what two pieces of work differ, in the words of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 3
"""Differences that a message names; the rest are counted."""
_ABSENT = object()


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], *, stage: str, sections: Mapping[str, str]
) -> str:
    """One line such as `pretrain.steps is 24 there and 30 in this recipe`.

    Args:
        there: `config`, `seed` and `inputs` of the work that a folder holds.
        here: the same of the work that is asked for.
        stage: whose.
        sections: the recipe's name of parts of `config`; any other part follows the stage's name.
    """
    found = [
        *_of_configs(there.get("config"), here["config"], stage, sections),
        *_of_seeds(there.get("seed"), here["seed"]),
        *_of_inputs(there.get("inputs"), here["inputs"]),
    ]
    if not found:
        return "another version of TallyFormer began it"
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _of_configs(
    there: Any, here: Mapping[str, Any], stage: str, sections: Mapping[str, str]
) -> Iterator[str]:
    for path, old, new in _leaves(there, here, ()):
        first, rest = (path[0], path[1:]) if path else ("", ())
        key = ".".join([sections.get(first, f"{stage}.{first}"), *rest])
        yield f"{key} is {_shown(old)} there and {_shown(new)} in this recipe"


def _of_seeds(there: Any, here: int) -> Iterator[str]:
    if there != here:
        yield f"seed is {_shown(there)} there and {here} in this recipe"


def _of_inputs(there: Any, here: Mapping[str, str]) -> Iterator[str]:
    for (name, *_), old, new in _leaves(there or {}, here, ()):
        if old is _ABSENT:
            yield f"it has not read {name}"
        elif new is _ABSENT:
            yield f"it has read {name}, which this recipe does not"
        else:
            yield f"{name} has changed since"


def _leaves(there: Any, here: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any, Any]]:
    """Path, old and new value of everything that differs."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in sorted({*there, *here}, key=str):
            old, new = there.get(name, _ABSENT), here.get(name, _ABSENT)
            yield from _leaves(old, new, (*path, str(name)))
    elif _is_list(there) and _is_list(here) and len(there) == len(here):
        for number, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from _leaves(old, new, (*path[:-1], f"{path[-1] if path else ''}[{number}]"))
    elif there != here:
        yield path, there, here


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _shown(value: Any) -> str:
    """A value, cut short, as a recipe would write it."""
    if value is _ABSENT:
        return "absent"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
