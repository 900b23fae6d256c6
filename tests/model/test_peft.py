"""LoRA through PEFT, with the targets of the recipe."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

pytestmark = [
    # The recipe asks for an adapter on a tied head; PEFT warns that the two then differ.
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    # PEFT still calls it by the name that transformers gave up.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TARGETS = ["query", "key", "value", "proj", "fc1", "fc2"]


@pytest.fixture
def lora(build):
    torch.manual_seed(0)
    return get_peft_model(
        build(),
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=TARGETS,
            modules_to_save=["lm_head"],
            task_type="CAUSAL_LM",
        ),
    )


def test_every_target_and_the_head_are_trained_and_nothing_else(lora):
    trained = {name for name, p in lora.named_parameters() if p.requires_grad}
    lora_layers = {name.split(".lora_")[0].split(".")[-1] for name in trained if ".lora_" in name}
    assert lora_layers == set(TARGETS)
    others = {name for name in trained if ".lora_" not in name}
    assert others == {"base_model.model.lm_head.modules_to_save.default.weight"}


def train_a_little(model, ids) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.filterwarnings("ignore:Could not find a config file")  # the base has no folder
def test_an_adapter_saves_loads_and_merges_without_changing_a_logit(lora, build, ids, tmp_path):
    train_a_little(lora, ids)
    wanted = lora(input_ids=ids).logits
    assert not torch.allclose(wanted, build()(ids).logits, atol=1e-2)
    lora.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(build(), tmp_path / "adapter").eval()
    torch.testing.assert_close(again(input_ids=ids).logits, wanted)
    with pytest.warns(UserWarning, match="no longer tied"):
        merged = again.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, wanted, atol=2e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    reloaded = TallyFormerForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.equal(reloaded(ids).logits, merged(ids).logits)


def test_training_the_head_leaves_the_tied_embedding_alone(lora, build, ids):
    train_a_little(lora, ids)
    assert torch.equal(lora.base_model.model.model.token_embed.weight, build().lm_head.weight)
