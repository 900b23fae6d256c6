"""Merge: the adapter's weights into its base. Leaves `merge/merged`, or nothing.

The written folder is loaded by a fresh process through transformers' Auto classes, and kept only
if its logits are those of the base with the adapter.
"""

from __future__ import annotations

from tallyformer.artifacts.atomic import atomic_folder
from tallyformer.artifacts.manifest import Manifest, entries_below
from tallyformer.artifacts.program import doctor
from tallyformer.artifacts.run_folder import MERGED, RunFolder, StageWork
from tallyformer.config import Recipe
from tallyformer.errors import ArtifactError, UsageError
from tallyformer.export.verify import fresh_logits, largest_difference, own_logits, probe_ids
from tallyformer.model.flops import count_parameters
from tallyformer.runs.data import load_tokenizer, result_of
from tallyformer.runs.weights import save_model
from tallyformer.stages.sft import ADAPTER, base_stage, load_base
from tallyformer.training.lora import load_adapter, merge

TOLERANCE = 1e-4
"""Largest difference of a logit, in float32. Merging reorders sums, which costs about 1e-5."""


def run(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> Manifest:
    """Write the merged model, or return at once if that has been done.

    Raises:
        UsageError: the recipe has no sft section.
        ArtifactError: the adapter belongs to another model, or the merged model is not the same.
    """
    if recipe.sft is None:
        raise UsageError(
            f"{recipe.name}: the recipe has no sft section, so there is nothing to merge. Leave "
            "this stage out, or add one"
        )
    work = work_of(recipe, folder, resume=resume)
    if not folder.is_finished("merge"):  # before the folder is signed: another adapter, other work
        _check_base(folder, base_stage(recipe))
    if done := work.already_done():
        return done
    return _merge(recipe, folder, work)


def work_of(recipe: Recipe, folder: RunFolder, *, resume: bool = True) -> StageWork:
    """What decides the merged weights."""
    names = ("tokenizer", base_stage(recipe), "sft")
    inputs = {name: result_of(folder, name) for name in names}
    return StageWork(
        run=folder, stage="merge", config={}, seed=recipe.seed, inputs=inputs, resume=resume
    )


def _check_base(folder: RunFolder, base: str) -> None:
    """The adapter must have been trained on the very weights it is merged into."""
    trained_on = folder.manifest("sft", check=True).inputs.get(base)
    if trained_on != folder.manifest(base, check=True).result:
        raise ArtifactError(
            f"{folder.stage('sft') / ADAPTER}: the adapter was made for another model than "
            f"{folder.stage(base)}. Delete {folder.stage('sft')} and make it again: "
            f"{folder.command('sft')}"
        )


def _merge(recipe: Recipe, folder: RunFolder, work: StageWork) -> Manifest:
    tokenizer = load_tokenizer(folder)
    base = load_base(recipe, folder, tokenizer, None)
    adapted = load_adapter(base, folder.stage("sft") / ADAPTER, folder.command("sft"))
    ids_BT = probe_ids(base.config.vocab_size, base.config.max_position_embeddings, recipe.seed)
    expected_BTV = own_logits(adapted, ids_BT)
    model = merge(adapted)
    with atomic_folder(work.folder / MERGED) as out:
        save_model(model, tokenizer, out, dropout=recipe.model.dropout)
        written = entries_below(out)  # before the check, so that what is signed was checked
        difference = largest_difference(fresh_logits(out, ids_BT), expected_BTV)
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"{work.folder / MERGED}: the merged model's logits differ from the adapter's by "
                f"{difference:.2g}, more than {TOLERANCE:g}; it is not kept. Check the installed "
                f"versions with {doctor()}, then resume with: "
                f"{folder.resume_command('merge')}"
            )
    metrics = {
        "largest_logit_difference": difference,
        "parameters": count_parameters(model.config),
        "tied": model.config.tie_word_embeddings,
    }
    files = {work.folder / MERGED / name: entry for name, entry in written.items()}
    return work.finish(metrics=metrics, files=files)
