"""`ReadyModel`: a model with what computes it, as `LLM` and others ask it. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tallyformer.errors import ArtifactError, TokenizerError
from tallyformer.inference.engine.runner import Runner
from tallyformer.inference.runner_names import RunnerName
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ReadyModel:
    """A model that is ready to answer.

    Attributes:
        runner: computes it.
        runner_name: "native" is ours in C++, "torch" is transformers'.
        source: the folder or name that it came from, for messages.
        device: where the weights are, as torch spells it.
        dtype: of the weights.
        context: tokens that it sees at once.
        eos_ids: ids that end an answer.
        default_params: how its folder wants to be sampled.
        transformers_model: where there is one.

    Raises:
        ArtifactError: the context is not one.
    """

    runner: Runner
    runner_name: RunnerName
    source: str
    device: str
    dtype: str
    context: int
    eos_ids: frozenset[int]
    default_params: SamplingParams
    transformers_model: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.context, int) or self.context < 2:
            raise ArtifactError(
                f"{self.source}: config.json does not say how many tokens the model reads "
                f"(max_position_embeddings: {self.context!r}). Add it"
            )


def check_tokenizer(tokenizer: Tokenizer, rows: int, source: str) -> None:
    """Refuse a tokenizer that has ids beyond the model's rows.

    Raises:
        TokenizerError: it has.
    """
    if tokenizer.vocab_size > rows:
        raise TokenizerError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} ids and the model {rows}, so "
            "they do not belong together. Give the tokenizer that the model was trained with, or "
            "resize the model's embeddings to it"
        )
