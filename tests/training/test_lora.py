"""Adapters through the PEFT library on the real class."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode

from tallyformer.config.sft import LoraSection
from tallyformer.data.batch import Batch
from tallyformer.errors import ArtifactError, UsageError
from tallyformer.model.flops import count_lora_parameters, lora_flops_per_token
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.training.lora import add_lora, load_adapter, merge, save_adapter
from tallyformer.training.losses import NextTokenLoss, output_head
from tallyformer.training.micro_batch import Placement
from tallyformer.training.optimizers import decay_groups
from tallyformer.training.precision import choose_precision

from .jobs import VOCABULARY, tiny_model

CONTROL = (3, VOCABULARY - 1)
IDS = torch.randint(VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(0))


def disturbed(model, section: LoraSection, factor: float = 0.05) -> PeftModel:
    """An adapter with random weights in everything it trains."""
    adapted = add_lora(model, section, CONTROL if section.train_control_tokens else ()).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * factor)
    return adapted


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


SECTIONS = {
    "recipe": LoraSection(),
    "no head": LoraSection(modules_to_save=()),
    "attention only": LoraSection(r=2, alpha=3, target_modules=("query", "value")),
    "control tokens": LoraSection(modules_to_save=(), train_control_tokens=True),
}


@pytest.mark.parametrize("kind", ["recipe", "no head", "attention only"])
def test_the_planned_trained_parameters_are_those_that_get_gradients(kind):
    section, model = SECTIONS[kind], tiny_model()
    planned = count_lora_parameters(
        model.config,
        rank=section.r,
        target_modules=section.target_modules,
        modules_to_save=section.modules_to_save,
    )
    adapted = add_lora(model, section)
    trained = {id(p): p.numel() for p in adapted.parameters() if p.requires_grad}
    assert planned == sum(trained.values())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", SECTIONS)
def test_a_saved_adapter_merges_into_a_model_with_its_logits(tmp_path, kind, tied):
    base = tiny_model(tie_word_embeddings=tied).eval()
    start = copy.deepcopy(base)
    adapted = disturbed(base, SECTIONS[kind])
    expected = logits(adapted)
    assert (expected - logits(start)).abs().max() > 0.01
    save_adapter(adapted, tmp_path, SECTIONS[kind].modules_to_save)
    loaded = load_adapter(copy.deepcopy(start), tmp_path, "MAKE").eval()
    # The same numbers in the same order.
    assert torch.equal(logits(loaded), expected)
    merged = merge(loaded)
    # W + B A is added once instead of at every product.
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert merged.config.tie_word_embeddings == tied
    assert not any("lora" in name for name, _ in merged.named_parameters())
    merged.save_pretrained(tmp_path / "merged")
    again = TallyFormerForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.equal(logits(again), logits(merged))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_peft_itself_loads_the_saved_adapter(tmp_path):
    base = tiny_model().eval()
    start = copy.deepcopy(base)
    adapted = disturbed(base, LoraSection())
    save_adapter(adapted, tmp_path, ("lm_head",))
    assert torch.equal(
        logits(PeftModel.from_pretrained(start, str(tmp_path)).eval()), logits(adapted)
    )


def test_a_tied_head_stays_tied_and_is_trained_with_the_embedding():
    model = tiny_model()
    add_lora(model, LoraSection())
    assert output_head(model).weight is model.get_input_embeddings().weight
    assert output_head(model).weight.requires_grad
    whole = [n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n]
    assert whole == ["model.token_embed.modules_to_save.default.weight"]


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_rows_of_control_tokens_change_in_embedding_and_tied_head(tied):
    model = tiny_model(tie_word_embeddings=tied).eval()
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    before, head_before = embedding.detach().clone(), head.detach().clone()
    adapted = disturbed(model, SECTIONS["control tokens"])
    merged = merge(adapted)
    changed = (merged.get_input_embeddings().weight != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == sorted(CONTROL)
    head_changed = (merged.get_output_embeddings().weight != head_before).any(dim=1)
    assert head_changed.nonzero().flatten().tolist() == (sorted(CONTROL) if tied else [])


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_and_its_gradients_with_control_tokens_are_those_of_the_adapted_model(tied):
    model = tiny_model(tie_word_embeddings=tied)
    adapted = disturbed(model, SECTIONS["control tokens"])
    trained = [p for p in model.parameters() if p.requires_grad]
    labels = IDS[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(
        adapted(IDS).logits[:, :-1].flatten(0, 1), labels, reduction="sum"
    )
    wanted = torch.autograd.grad(expected, trained)
    batch = Batch(IDS[:, :-1], IDS[:, 1:].contiguous(), None)
    inputs = Placement(torch.device("cpu"))(batch)
    precision = choose_precision("fp32", torch.device("cpu"))
    found, _ = NextTokenLoss(model)(inputs, 1.0, precision)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(torch.autograd.grad(found, trained), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_rows_of_control_tokens_are_not_decayed():
    model = tiny_model()
    disturbed(model, SECTIONS["control tokens"])
    decayed, plain = decay_groups(model)
    assert not any("tokens" in name for name in decayed)
    assert sum("tokens" in name for name in plain) == 1


def test_a_head_trained_apart_leaves_the_merged_model_untied(tmp_path):
    """As adapters of other programs do, which save the head without its embedding."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model().eval()
    config = LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["query"], modules_to_save=["lm_head"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        output_head(model).weight.add_(0.1 * torch.randn(VOCABULARY, 16))
    expected = logits(adapted)
    merged = merge(adapted)
    assert merged.config.tie_word_embeddings is False
    merged.save_pretrained(tmp_path)
    again = TallyFormerForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (LoraSection(target_modules=("query", "gate")), "target_modules.*'gate'.*fc1"),
        (LoraSection(modules_to_save=("head",)), "modules_to_save.*'head'.*lm_head"),
        (LoraSection(target_modules=("lm_head",)), "trained whole or not at all"),
        (
            LoraSection(target_modules=("query", "token_embed"), modules_to_save=()),
            "'token_embed' is tied to the head.*Add 'lm_head'",
        ),
        (LoraSection(target_modules=("attention",)), "'attention' is not a layer with one matrix"),
        (LoraSection(target_modules=("attn_norm",)), "'attn_norm' is not a layer with one matrix"),
        (
            LoraSection(target_modules=("query", "fc1"), modules_to_save=("fc1",)),
            "'fc1' is trained whole",
        ),
        (
            LoraSection(target_modules=("query",), modules_to_save=("attention",)),
            "'query' is trained whole",
        ),
        (
            LoraSection(target_modules=("query",), modules_to_save=("blocks",)),
            "'query' is trained whole",
        ),
    ],
)
def test_a_module_that_cannot_be_adapted_is_named(section, words):
    with pytest.raises(UsageError, match=words):
        add_lora(tiny_model(), section)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "section",
    [
        LoraSection(target_modules=("query", "token_embed")),
        LoraSection(modules_to_save=("token_embed",)),
        LoraSection(modules_to_save=("token_embed", "lm_head")),
        LoraSection(modules_to_save=("final_norm",)),
    ],
    ids=["factors of the embedding", "embedding", "embedding and head", "norm"],
)
@pytest.mark.filterwarnings("ignore")  # PEFT warns of each of these
def test_whatever_is_accepted_merges_into_the_same_logits(tmp_path, section, tied):
    adapted = disturbed(tiny_model(tie_word_embeddings=tied), section)
    wanted = logits(adapted)
    save_adapter(adapted, tmp_path, section.modules_to_save)
    again = load_adapter(tiny_model(tie_word_embeddings=tied), tmp_path, "MAKE")
    torch.testing.assert_close(logits(again), wanted)
    torch.testing.assert_close(logits(merge(again)), wanted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", None),
        ("r", "8"),
        ("r", True),
        ("r", 0),
        ("lora_alpha", None),
        ("lora_alpha", [32]),
        ("target_modules", None),
        ("target_modules", 7),
        ("target_modules", []),
        ("target_modules", [1]),
        ("modules_to_save", 3),
        ("peft_type", None),
        ("peft_type", "IA3"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_a_wrong_value_in_an_adapters_configuration_is_named(tmp_path, field, value, missing):
    save_adapter(disturbed(tiny_model(), LoraSection()), tmp_path, ("lm_head",))
    path = tmp_path / "adapter_config.json"
    values = json.loads(path.read_text())
    if missing:
        del values[field]
    else:
        values[field] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=field) as caught:
        load_adapter(tiny_model(), tmp_path, "MAKE")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lora_dropout", "x"), ("bias", 3), ("use_dora", "no"), ("rank_pattern", 1)],
)
def test_any_mistyped_value_of_peft_is_one_line(tmp_path, field, value):
    save_adapter(disturbed(tiny_model(), LoraSection()), tmp_path, ("lm_head",))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ArtifactError) as caught:
        load_adapter(tiny_model(), tmp_path, "MAKE")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Could not find a config file", "ignore::FutureWarning")
def test_a_saved_adapter_names_no_folder(tmp_path):
    model = tiny_model()
    model.config.name_or_path = model.name_or_path = str(tmp_path / "base")
    save_adapter(disturbed(model, LoraSection()), tmp_path / "adapter", ("lm_head",))
    for file in (tmp_path / "adapter").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    moved = (tmp_path / "adapter").rename(tmp_path / "moved")
    again = PeftModel.from_pretrained(tiny_model(), moved).eval()
    torch.testing.assert_close(logits(again), logits(load_adapter(tiny_model(), moved, "MAKE")))


def test_a_gated_model_adapts_its_gate_too():
    model = tiny_model(mlp_type="swiglu")
    add_lora(model, LoraSection(target_modules=("gate", "fc1")))
    assert any("gate.lora_A" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("other", [{"hidden_size": 24}, {"num_hidden_layers": 3}])
def test_an_adapter_for_another_model_is_refused(tmp_path, other):
    save_adapter(disturbed(tiny_model(), LoraSection()), tmp_path, ("lm_head",))
    with pytest.raises(ArtifactError, match="made for another model"):
        load_adapter(tiny_model(**other), tmp_path, "MAKE")


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_named(tmp_path, file):
    save_adapter(disturbed(tiny_model(), LoraSection()), tmp_path, ("lm_head",))
    (tmp_path / file).write_bytes(b"{broken")
    with pytest.raises(ArtifactError, match=r"damaged|no adapter can be loaded"):
        load_adapter(tiny_model(), tmp_path, "MAKE")


def test_a_checkpoint_of_an_adapter_holds_what_is_trained_only():
    from tallyformer.training.checkpoints import model_tensors

    model = tiny_model()
    add_lora(model, LoraSection(modules_to_save=()))
    assert all("lora" in name for name in model_tensors(model))


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("kind", SECTIONS)
def test_flops_agree_with_torchs_own_counter(kind, mlp):
    section, context = SECTIONS[kind], IDS.shape[1]
    model = tiny_model(num_hidden_layers=8, mlp_type=mlp)
    model.set_attn_implementation("eager")
    add_lora(model, section, CONTROL if section.train_control_tokens else ())
    counter = FlopCounterMode(display=False)
    with counter:
        model(IDS).logits.sum().backward()
    ours = lora_flops_per_token(
        model.config,
        context,
        rank=section.r,
        target_modules=section.target_modules,
        modules_to_save=section.modules_to_save,
    )
    # Eager attention computes every score, the formula the causal half: the difference is known.
    whole = 8 * 4 * 16 * (context - (context + 1) / 2) * 3
    # Where nothing before the first block is trained, that block passes no gradient on.
    slack = 1e-9 if section.modules_to_save else 0.03
    assert counter.get_total_flops() / IDS.numel() == pytest.approx(ours + whole, rel=slack)
