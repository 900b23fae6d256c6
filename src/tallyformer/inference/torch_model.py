"""Models that transformers computes, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallyformer.inference.engine.torch_runner import TorchRunner
from tallyformer.inference.folder_defaults import check_settings, end_ids, sampling_defaults
from tallyformer.inference.ready_model import ReadyModel, check_tokenizer
from tallyformer.inference.torch_runners import torch_runner
from tallyformer.model.device import choose_device
from tallyformer.model.loading import load_model
from tallyformer.tokenizer.tokenizer import Tokenizer


def load_with_torch(
    source: str | Path,
    tokenizer: Tokenizer,
    *,
    dtype: Any = None,
    device: Any = None,
    batch_invariant: bool = False,
) -> ReadyModel:
    """Load a folder, or a name on the hub, with transformers.

    Raises:
        ArtifactError, CheckpointError, TokenizerError: it is missing or damaged, or does not fit
            its tokenizer.
        UsageError: dtype or device is unknown or not there, or `batch_invariant` is not possible.
    """
    check_settings(Path(source))
    model = load_model(source, dtype=dtype, device=choose_device(device))
    return with_torch(model, tokenizer, batch_invariant=batch_invariant)


def with_torch(
    model: Any,
    tokenizer: Tokenizer,
    *,
    batch_invariant: bool = False,
    runner: TorchRunner | None = None,
) -> ReadyModel:
    """A transformers model in eval mode.

    Args:
        model: it may be on any device.
        tokenizer: its own.
        batch_invariant: see `LLM.from_pretrained`.
        runner: computes the model; by default the fastest one.

    Raises:
        ArtifactError, TokenizerError: it does not say how much it reads, or does not fit the
            tokenizer.
        UsageError: `batch_invariant` is not possible with it.
    """
    source = str(model.config.name_or_path)
    rows = int(model.get_input_embeddings().num_embeddings)
    check_tokenizer(tokenizer, rows, source)
    settings = _values(getattr(model, "generation_config", None))
    of_config = model.config.eos_token_id
    parameter = next(model.parameters())
    return ReadyModel(
        runner=runner or torch_runner(model, tokenizer.vocab_size, batch_invariant=batch_invariant),
        runner_name="torch",
        source=source,
        device=str(parameter.device),
        dtype=str(parameter.dtype).removeprefix("torch."),
        context=getattr(model.config, "max_position_embeddings", None),  # type: ignore[arg-type]
        eos_ids=end_ids(settings, [of_config] if isinstance(of_config, int) else of_config or ()),
        default_params=sampling_defaults(settings, source),
        transformers_model=model,
    )


def _values(config: Any) -> Mapping[str, Any]:
    return {} if config is None else vars(config)
