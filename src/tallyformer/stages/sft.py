"""Supervised fine-tuning: LoRA on the distilled (or pretrained) model. Leaves `sft/adapter`."""

from __future__ import annotations

import functools
from typing import Any

from tallyformer.artifacts.manifest import Manifest
from tallyformer.artifacts.run_folder import BEST, RunFolder, StageWork
from tallyformer.config import Recipe
from tallyformer.config.sft import SftSection
from tallyformer.config.training import LOOKED_AT_ONLY
from tallyformer.data.batch import BatchSource
from tallyformer.data.conversations import (
    Conversation,
    ConversationBatches,
    encode_pair,
    truncations,
)
from tallyformer.data.joining import training_conversations
from tallyformer.data.packed import PackedBatches
from tallyformer.data.pairs import PairSplit, check_held_out, split_pairs
from tallyformer.data.replay import ReplayBatches
from tallyformer.data.sources import RowSource, check_unchanged, pair_source
from tallyformer.errors import UsageError
from tallyformer.evaluation.responses import spread
from tallyformer.model.device import choose_device
from tallyformer.model.flops import head_flops, lora_flops_per_token
from tallyformer.runs.data import finish, load_shards, load_tokenizer, result_of
from tallyformer.runs.samples import answers
from tallyformer.runs.weights import earlier_model
from tallyformer.tokenizer import Tokenizer
from tallyformer.training.checkpoints import trainable
from tallyformer.training.job import TrainingJob
from tallyformer.training.loop import evaluate_only, train
from tallyformer.training.lora import add_lora, save_adapter
from tallyformer.training.losses import NextTokenLoss
from tallyformer.training.random_state import preserved_random_states, seed_everything

ADAPTER = "adapter"


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Train an adapter on the recipe's pairs, or return at once if that has been done.

    Raises:
        UsageError: the recipe has no sft section, or names modules the model does not have.
        DataError: a source of pairs cannot be used, or no pair is held out.
        ArtifactError: the base model cannot be used.
        Interrupted, TrainingError, CheckpointError: see `training.loop.train`.
    """
    section = _section(recipe)
    work = work_of(recipe, folder, resume=resume)
    if done := work.already_done():
        return done
    return _fine_tune(recipe, section, folder, work)


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the adapter. Reads the sources of pairs to the end."""
    section, base = _section(recipe), base_stage(recipe)
    read = ["tokenizer", base, *(["prepare"] if section.replay else [])]
    inputs = {name: result_of(folder, name) for name in read}
    for source in _sources(recipe, section):
        inputs |= source.fingerprints()
    return StageWork(
        run=folder,
        stage="sft",
        config=section.model_dump(mode="json", exclude=set(LOOKED_AT_ONLY)),
        seed=recipe.seed,
        inputs=inputs,
        resume=resume,
    )


def _sources(recipe: Recipe, section: SftSection) -> list[RowSource]:
    return [
        pair_source(source, data_root=recipe.data_root, seed=recipe.seed)
        for source in section.sources
    ]


def _section(recipe: Recipe) -> SftSection:
    if recipe.sft is None:
        raise UsageError(
            f"{recipe.name}: the recipe has no sft section. Leave this stage out, or add one"
        )
    return recipe.sft


def base_stage(recipe: Recipe) -> str:
    """The stage whose best weights are fine-tuned."""
    return "distill" if recipe.distill else "pretrain"


def load_base(
    recipe: Recipe, folder: RunFolder, tokenizer: Tokenizer, dropout: float | None
) -> Any:
    """The model that the adapter belongs to."""
    stage = base_stage(recipe)
    made_by = folder.command(stage)
    return earlier_model(folder.stage(stage) / BEST, tokenizer, dropout=dropout, made_by=made_by)


def _fine_tune(recipe: Recipe, section: SftSection, folder: RunFolder, work: StageWork) -> Manifest:
    tokenizer = load_tokenizer(folder)
    device = choose_device()
    model = load_base(recipe, folder, tokenizer, section.dropout).to(device)
    context = model.config.max_position_embeddings
    pairs = split_pairs(
        section.sources,
        data_root=recipe.data_root,
        validation_fraction=section.validation_fraction,
        seed=recipe.seed,
    )
    check_unchanged(_sources(recipe, section), work.inputs)
    conversations, learnt, validation = _batches(recipe, section, tokenizer, pairs, context)
    batches = _with_replay(recipe, section, folder, tokenizer, learnt, context=context)
    token_bytes = tokenizer.token_bytes()
    before = evaluate_only(
        model,
        validation,
        device=device,
        section=section,
        token_bytes=token_bytes,
        label="before sft",
    )
    with preserved_random_states(device):
        seed_everything(recipe.seed)
        control = (tokenizer.user_id, tokenizer.assistant_id)
        adapted = add_lora(
            model, section.lora, control if section.lora.train_control_tokens else ()
        )
    result = train(
        TrainingJob(
            name="sft",
            model=model,
            make_loss=lambda model, compiled: NextTokenLoss(
                model, section.z_loss, compiled=compiled
            ),
            train=batches,
            validation=validation,
            section=section,
            folder=work.folder,
            best=work.folder / ADAPTER,
            save_best=lambda best: save_adapter(adapted, best, section.lora.modules_to_save),
            seed=recipe.seed,
            device=device,
            token_bytes=token_bytes,
            flops_per_token=lora_flops_per_token(
                model.config,
                context,
                rank=section.lora.r,
                target_modules=section.lora.target_modules,
                modules_to_save=section.lora.modules_to_save,
            ),
            head_flops=head_flops(model.config, trained="lm_head" in section.lora.modules_to_save),
            resume_command=folder.resume_command("sft"),
            restart_command=functools.partial(folder.restart_command, "sft", "sft"),
            take_samples=answers(model, tokenizer, section, pairs.validation),
        )
    )
    metrics = {
        **result.metrics(),
        "response_perplexity_before": before.values()["perplexity"],
        "response_perplexity": result.best.values()["perplexity"],
        "trained_parameters": sum(p.numel() for p in trainable(model).values()),
        "pairs": dict(pairs.counts),
        "row_utilisation": round(learnt.utilisation, 4),
        "answers": sum(len(pair.turns) // 2 for pair in pairs.train),
        "conversations_shortened": sum(c.turns_cut > 0 for c in conversations),
        **truncations(conversations),
    }
    return finish(work, metrics, result.files, result.records)


def _batches(
    recipe: Recipe, section: SftSection, tokenizer: Tokenizer, pairs: PairSplit, context: int
) -> tuple[list[Conversation], ConversationBatches, ConversationBatches]:
    check_held_out(pairs)
    train_on = training_conversations(
        tokenizer, pairs.train, context=context, most=section.join_pairs, seed=recipe.seed
    )
    held_out = [encode_pair(tokenizer, pair, context) for pair in pairs.validation]
    held_out = _at_most(held_out, section.evaluation_tokens)
    shape: dict[str, Any] = {
        "context": context,
        "seed": recipe.seed,
        "pad_id": tokenizer.pad_id,
    }
    at_once = 1 if section.replay else section.micro_batch  # replay mixes single rows
    return (
        train_on,
        ConversationBatches(train_on, batch_size=at_once, **shape),
        ConversationBatches(held_out, batch_size=section.micro_batch, **shape, shuffle=False),
    )


def _with_replay(
    recipe: Recipe,
    section: SftSection,
    folder: RunFolder,
    tokenizer: Tokenizer,
    learnt: ConversationBatches,
    *,
    context: int,
) -> BatchSource:
    """The conversations, with `section.replay` of the rows taken from the text of pretraining."""
    if not section.replay:
        return learnt
    shards = load_shards(folder, tokenizer)
    return ReplayBatches(
        learnt,
        PackedBatches(
            shards.train,
            context=context,
            batch_size=1,
            seed=recipe.seed + 1,
            weights=recipe.pretrain.weights or shards.weights,
        ),
        share=section.replay,
        batch_size=section.micro_batch,
    )


def _at_most(conversations: list[Conversation], tokens: int) -> list[Conversation]:
    """Conversations spread evenly over all, with about this many positions in all."""
    total = sum(c.positions for c in conversations)
    return spread(conversations, max(1, len(conversations) * tokens // max(1, total)))
