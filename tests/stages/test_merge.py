from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tallyformer.artifacts.manifest import resign
from tallyformer.artifacts.run_folder import RunFolder
from tallyformer.errors import ArtifactError, UsageError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.runs.weights import save_model
from tallyformer.stages import export, merge, pretrain, sft
from tallyformer.training.lora import load_adapter


def test_the_merged_folder_has_the_adapters_logits_and_the_bases_shape(tuned, make_recipe):
    metrics = merge.run(make_recipe(), tuned).metrics
    assert metrics["largest_logit_difference"] <= 1e-4
    base = TallyFormerForCausalLM.from_pretrained(tuned.stage("distill") / "best")
    parameters = sum(p.numel() for p in base.parameters())
    adapted = load_adapter(base, tuned.stage("sft") / "adapter", "MAKE").eval()
    merged = TallyFormerForCausalLM.from_pretrained(tuned.stage("merge") / "merged").eval()
    ids = torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=0, atol=1e-4)
    assert metrics["tied"] is True
    assert merged.lm_head.weight is merged.model.token_embed.weight
    assert sum(p.numel() for p in merged.parameters()) == parameters == metrics["parameters"]


def test_a_model_that_is_not_the_adapters_is_refused_and_leaves_nothing(
    tuned, make_recipe, monkeypatch
):
    """What is written differs in one weight from what was merged."""
    honest = save_model

    def careless(model, tokenizer, folder, *, dropout):
        honest(model, tokenizer, folder, dropout=dropout)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.final_norm.weight"][0] += 0.05
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(merge, "save_model", careless)
    with pytest.raises(ArtifactError, match=r"differ from the adapter's by .* more than 0.0001"):
        merge.run(make_recipe(), tuned)
    assert [p.name for p in tuned.stage("merge").iterdir()] == ["work.txt"]
    monkeypatch.undo()
    assert merge.run(make_recipe(), tuned).metrics["largest_logit_difference"] <= 1e-4


def test_an_adapter_of_another_base_is_refused(tuned, make_recipe):
    """The base is made again with other numbers; the adapter is the old one."""
    for stage in ("pretrain", "distill"):
        shutil.rmtree(tuned.stage(stage))
    recipe = make_recipe(seed=2, distill=None)
    with pytest.raises(ArtifactError):
        merge.run(recipe, tuned)
    other = make_recipe(distill=None)
    changed = other.model_copy(update={"pretrain": other.pretrain.model_copy(update={"steps": 3})})
    pretrain.run(changed, tuned)
    with pytest.raises(ArtifactError, match="made for another model"):
        merge.run(changed, tuned)
    assert not (tuned.stage("merge") / "merged").exists()


def test_an_altered_adapter_is_named(tuned, make_recipe):
    file = tuned.stage("sft") / "adapter" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors: checksum differs"):
        merge.run(make_recipe(), tuned)


def test_an_adapter_with_other_shapes_is_refused(tuned, make_recipe):
    """A larger adapter in the place of this run's, with a manifest that vouches for it."""
    file = tuned.stage("sft") / "adapter" / "adapter_model.safetensors"
    manifest = tuned.manifest("sft")
    wide = {n: t.repeat(2, 2) if t.ndim == 2 else t for n, t in load_file(file).items()}
    save_file(wide, file, metadata={"format": "pt"})
    resign(tuned.stage("sft"), manifest, [Path(name) for name in manifest.files])
    with pytest.raises(ArtifactError, match="made for another model"):
        merge.run(make_recipe(), tuned)


def test_a_head_that_is_not_trained_merges_too(pretrained, make_recipe):
    recipe = make_recipe(distill=None)
    lora = recipe.sft.lora.model_copy(update={"modules_to_save": ()})
    recipe = recipe.model_copy(
        update={"sft": recipe.sft.model_copy(update={"lora": lora, "steps": 3})}
    )
    sft.run(recipe, pretrained)
    assert merge.run(recipe, pretrained).metrics["tied"] is True


def test_a_recipe_without_sft_has_nothing_to_merge(pretrained, make_recipe):
    with pytest.raises(UsageError, match="nothing to merge"):
        merge.run(make_recipe(sft=None), pretrained)


@pytest.mark.parametrize("stage", [merge, export])
def test_a_full_disk_is_one_line_and_leaves_the_claim_alone(tuned, make_recipe, make_disk, stage):
    recipe = make_recipe() if stage is merge else make_recipe(distill=None, sft=None)
    run = RunFolder(make_disk("size=100k"))
    for name in ("tokenizer", "pretrain", "distill", "sft"):
        run.stage(name).symlink_to(tuned.stage(name))
    with pytest.raises(ArtifactError, match=r"cannot be written \(No space.*Free disk space"):
        stage.run(recipe, run)
    left = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if not p.is_symlink()}
    folder = "merge" if stage is merge else "model"
    assert left == {folder, f"{folder}/work.txt"}
