from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from tallyformer.data.conversations import ConversationBatches, encode_pair
from tallyformer.data.pairs import split_pairs
from tallyformer.errors import ArtifactError, DataError, UsageError
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.stages import sft
from tallyformer.training.loop import evaluate_only

from ..small_run import TRAIN


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_fine_tuning_lowers_the_response_perplexity_of_the_saved_adapter(tuned, make_recipe):
    recipe = make_recipe()
    metrics = sft.run(recipe, tuned).metrics
    assert metrics["response_perplexity"] < 0.8 * metrics["response_perplexity_before"]
    base = TallyFormerForCausalLM.from_pretrained(tuned.stage("distill") / "best")
    adapted = PeftModel.from_pretrained(base, str(tuned.stage("sft") / "adapter"))
    tokenizer, validation = held_out(recipe, tuned)
    found = evaluate_only(
        adapted.get_base_model(),
        validation,
        device=torch.device("cpu"),
        section=recipe.sft,
        token_bytes=tokenizer.token_bytes(),
        label="validation",
    )
    assert found.perplexity == pytest.approx(metrics["response_perplexity"], rel=1e-5)


def held_out(recipe, run):
    from tallyformer.runs.data import load_tokenizer

    tokenizer = load_tokenizer(run)
    pairs = split_pairs(
        recipe.sft.sources,
        data_root=recipe.data_root,
        validation_fraction=recipe.sft.validation_fraction,
        seed=recipe.seed,
    )
    conversations = [encode_pair(tokenizer, pair, 32) for pair in pairs.validation]
    return tokenizer, ConversationBatches(
        conversations, context=32, batch_size=4, seed=0, pad_id=tokenizer.pad_id, shuffle=False
    )


def test_the_adapter_is_in_pefts_format_with_the_recipes_settings(tuned, make_recipe):
    folder = tuned.stage("sft") / "adapter"
    values = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    lora = make_recipe().sft.lora
    assert values["peft_type"] == "LORA"
    assert (values["r"], values["lora_alpha"]) == (lora.r, lora.alpha)
    assert sorted(values["target_modules"]) == sorted(lora.target_modules)
    assert values["modules_to_save"] == ["lm_head"]
    tensors = load_file(folder / "adapter_model.safetensors")
    assert any("fc2.lora_B" in name for name in tensors)
    assert not any("fc2.base_layer" in name for name in tensors)


def test_without_distillation_the_pretrained_model_is_tuned(pretrained, make_recipe):
    section = {**TRAIN, "steps": 2, "sources": [{"name": "pairs", "paths": ["pairs.jsonl"]}]}
    manifest = sft.run(make_recipe(distill=None, sft=section), pretrained)
    assert "pretrain" in manifest.inputs
    assert "distill" not in manifest.inputs


def test_changed_pairs_are_other_work(pretrained, make_recipe, tmp_path):
    pairs = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"Question {n}?", "response": f"Answer {n}."} for n in range(40)]
    pairs.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    section = {**TRAIN, "steps": 2, "sources": [{"name": "mine", "paths": [str(pairs)]}]}
    recipe = make_recipe(distill=None, sft=section)
    sft.run(recipe, pretrained)
    pairs.write_text(pairs.read_text().replace("Answer 3", "Answer x"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="belongs to another run"):
        sft.run(recipe, pretrained)


def test_no_held_out_pair_is_an_error_with_the_fix(pretrained, make_recipe, tmp_path):
    pairs = tmp_path / "one.jsonl"
    pairs.write_text('{"prompt": "Only one?", "response": "Yes."}\n', encoding="utf-8")
    section = {
        **TRAIN,
        "validation_fraction": 1e-9,
        "sources": [{"name": "one", "paths": [str(pairs)]}],
    }
    with pytest.raises(DataError, match=r"all 1 pairs ask the same.*context_fields"):
        sft.run(make_recipe(distill=None, sft=section), pretrained)


def test_a_module_the_model_lacks_is_named(pretrained, make_recipe):
    section = {
        **TRAIN,
        "sources": [{"name": "pairs", "paths": ["pairs.jsonl"]}],
        "lora": {"target_modules": ["gate"]},
    }
    with pytest.raises(UsageError, match="'gate'"):
        sft.run(make_recipe(distill=None, sft=section), pretrained)


def test_a_recipe_without_the_section_is_refused(pretrained, make_recipe):
    with pytest.raises(UsageError, match="no sft section"):
        sft.run(make_recipe(sft=None), pretrained)


def test_conversations_are_trained_with_every_answer(pretrained, make_recipe, tmp_path):
    from tallyformer.runs.data import load_tokenizer

    turns = ["bond?", "share.", "why?", "yield.", "and then?", "price."]
    roles = ("human", "gpt")
    rows = [
        {
            "conversations": [
                {"from": roles[n % 2], "value": f"{text} {number}"} for n, text in enumerate(turns)
            ]
        }
        for number in range(30)
    ]
    rows += [{"messages": [{"role": "user", "content": f"no answer {n}"}]} for n in range(3)]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    section = {**TRAIN, "steps": 2, "sources": [{"name": "talk", "paths": [str(path)]}]}
    recipe = make_recipe(distill=None, sft=section)
    metrics = sft.run(recipe, pretrained).metrics
    counts = metrics["pairs"]["talk"]
    assert counts["dropped"] == {"no_answer": 3} and counts["rows"] == 33
    assert metrics["answers"] == 3 * counts["train"]
    pairs = split_pairs(
        recipe.sft.sources,
        data_root=recipe.data_root,
        validation_fraction=recipe.sft.validation_fraction,
        seed=recipe.seed,
    )
    cut = [encode_pair(load_tokenizer(pretrained), p, 32).turns_cut for p in pairs.train]
    assert metrics["conversations_shortened"] == sum(n > 0 for n in cut) > 0
