"""What every load and save of a Hugging Face folder needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from transformers.utils import logging as transformers_logging


def check_complete(report: Mapping[str, Any], *, exactly: bool = False) -> None:
    """Refuse weights that lack a tensor, which transformers would fill with random numbers.

    Args:
        report: what `from_pretrained(..., **REPORTED)` says.
        exactly: refuse tensors that the model has no place for, too. Folders of other projects
            may hold some.

    Raises:
        ValueError: a tensor is missing, has another shape, or has no place.
    """
    wrong = {"are missing": report["missing_keys"]}
    wrong["have another shape"] = [key for key, *_ in report["mismatched_keys"]]
    if exactly:
        wrong["have no place in the model"] = report["unexpected_keys"]
    for what, names in wrong.items():
        if names:
            raise ValueError(f"{len(names)} tensors {what}, the first is {min(names)!r}")


REPORTED: Mapping[str, bool] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments of `from_pretrained` that leave it to `check_complete` to refuse weights.

transformers itself refuses wrong shapes with a look at a table that `quiet_library` hides.
"""


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Keep transformers' bars and tables of tensors out of what the user sees.

    `check_complete` says in one line what such a table would.
    """
    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
