"""The heads that label texts and tokens, beside those of a stock Llama with the same weights."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Trainer,
    TrainingArguments,
)

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.llama import to_llama
from tallyformer.model.modeling_tallyformer import (
    TallyFormerForCausalLM,
    TallyFormerForSequenceClassification,
    TallyFormerForTokenClassification,
)

SEQUENCES, TOKENS = TallyFormerForSequenceClassification, TallyFormerForTokenClassification
LLAMAS = {SEQUENCES: LlamaForSequenceClassification, TOKENS: LlamaForTokenClassification}
# Two float32 computations that only differ in the order of their sums.
ORDER = {"atol": 2e-5, "rtol": 1e-5}
LLAMA = {"mlp_type": "swiglu", "proj_bias": False, "mlp_out_bias": False, "rope_layout": "half"}
PAD = 0
both = pytest.mark.parametrize("cls", [SEQUENCES, TOKENS], ids=["sequences", "tokens"])


@pytest.fixture
def classifier(build):
    """A function that makes a tiny classifier of three labels on the body that `build` makes."""

    def make(cls, **overrides):
        body = build(**overrides).model
        config = TallyFormerConfig(**{**body.config.to_dict(), "num_labels": 3, **overrides})
        torch.manual_seed(2)
        made = cls(config).eval()
        made.model.load_state_dict(body.state_dict())
        torch.nn.init.normal_(made.score.weight)
        if made.score.bias is not None:
            torch.nn.init.normal_(made.score.bias)
        return made

    return make


def padded(rows, side):
    """The rows in one batch, and the mask that tells padding."""
    width = max(len(row) for row in rows)
    batch = torch.full((len(rows), width), PAD)
    mask = torch.zeros_like(batch)
    for at, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), None)
        batch[at, place], mask[at, place] = row, 1
    return batch, mask


@both
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_llama_with_the_same_weights_labels_alike(cls, side, classifier, build, ids):
    model = classifier(cls, **LLAMA)
    body = to_llama(build(**LLAMA))
    config = body.config
    config.num_labels = 3
    llama = LLAMAS[cls](config).eval()
    llama.model.load_state_dict(body.model.state_dict())
    llama.score.load_state_dict(model.score.state_dict())
    batch, mask = padded([ids[0], ids[1, :5], ids[2, :8]], side)
    labels = torch.tensor([0, 2, 1])
    if cls is TOKENS:
        labels = (batch % 3).masked_fill(mask == 0, -100)
    for attention_mask in (mask, None):
        found = model(batch, attention_mask=attention_mask, labels=labels)
        wanted = llama(batch, attention_mask=attention_mask, labels=labels)
        seen = mask.bool() if cls is TOKENS else slice(None)  # padding means nothing
        torch.testing.assert_close(found.logits[seen], wanted.logits[seen], **ORDER)
        torch.testing.assert_close(found.loss, wanted.loss, **ORDER)


@pytest.mark.parametrize(
    ("by", "side"),
    # Without a mask, padding on the left would be read as text.
    [("mask", "left"), ("mask", "right"), ("ids", "right"), ("embeddings", "left")],
)
def test_a_padded_text_is_labelled_as_it_is_alone(by, side, classifier, shape, ids):
    model = classifier(SEQUENCES, **shape)
    rows = [ids[0], ids[1, :5], ids[2, :1]]
    batch, mask = padded(rows, side)
    given = {"input_ids": batch, "attention_mask": mask}
    if by == "embeddings":
        given["inputs_embeds"] = model.model.token_embed(given.pop("input_ids"))
    if by == "ids":
        del given["attention_mask"]
    alone = torch.cat([model(row[None]).logits for row in rows])
    torch.testing.assert_close(model(**given).logits, alone, **ORDER)


def test_a_token_that_is_no_padding_counts_though_its_id_is_the_pad_tokens(classifier, ids):
    """Where the end of text pads, a text that ends with it would be labelled a token early."""
    model = classifier(SEQUENCES, pad_token_id=2)
    text = torch.cat([ids[:1], torch.tensor([[2]])], dim=1)
    batch, mask = padded([text[0], ids[1, :4]], "right")
    found = model(batch.masked_fill(mask == 0, 2), attention_mask=mask).logits
    by_hand = model.score(model.model(text).last_hidden_state[:, -1])
    torch.testing.assert_close(found[:1], by_hand, **ORDER)


def test_a_text_read_in_two_parts_is_labelled_at_its_end(classifier, ids):
    model = classifier(SEQUENCES)
    batch, mask = padded([ids[0], ids[1, :9]], "left")
    first = model(batch[:, :5], attention_mask=mask[:, :5], use_cache=True)
    second = model(batch[:, 5:], attention_mask=mask, past_key_values=first.past_key_values)
    whole = model(batch, attention_mask=mask).logits
    torch.testing.assert_close(second.logits, whole, **ORDER)


def test_rows_whose_padding_nothing_tells_are_refused(classifier, ids):
    model = classifier(SEQUENCES, pad_token_id=None)
    with pytest.raises(ValueError, match="Give an attention_mask"):
        model(ids)
    one = model(ids[:1]).logits
    many = model(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(many[:1], one, **ORDER)


@both
def test_a_classifier_is_saved_and_loaded_with_its_labels(cls, shape, classifier, ids, tmp_path):
    model = classifier(cls, **shape)
    model.config.id2label = {0: "bond", 1: "share", 2: "loan"}
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.config.id2label[again(ids).logits[0].argmax(-1).flatten()[0].item()]
    assert again.config.id2label == model.config.id2label


@both
def test_a_classifier_starts_from_the_body_of_a_language_model(cls, build, ids, tmp_path):
    language_model = build()
    language_model.save_pretrained(tmp_path)
    made = cls.from_pretrained(tmp_path, num_labels=5)
    body = made.model(ids).last_hidden_state
    torch.testing.assert_close(body, language_model.model(ids).last_hidden_state)
    assert made(ids).logits.shape[-1] == 5
    made.save_pretrained(tmp_path / "classifier")
    back = TallyFormerForCausalLM.from_pretrained(tmp_path / "classifier")
    assert torch.equal(back(ids).logits, language_model(ids).logits)


@pytest.mark.parametrize(
    ("labels", "problem", "loss"),
    [
        (torch.tensor([0, 2, 1]), "single_label_classification", torch.nn.CrossEntropyLoss()),
        (torch.eye(3), "multi_label_classification", torch.nn.BCEWithLogitsLoss()),
        (torch.tensor([0.1, -2.0, 3.0]), "regression", torch.nn.MSELoss()),
    ],
    ids=["one class", "several classes", "numbers"],
)
def test_the_labels_decide_the_loss(labels, problem, loss, classifier, ids):
    model = classifier(SEQUENCES, num_labels=1 if problem == "regression" else 3)
    out = model(ids, labels=labels)
    assert model.config.problem_type == problem
    torch.testing.assert_close(out.loss, loss(out.logits.squeeze(-1), labels))


def test_a_token_is_labelled_in_its_place_and_padding_is_not(classifier, ids):
    model = classifier(TOKENS)
    labels = (ids % 3).clone()
    labels[1, 4:] = -100
    out = model(ids, labels=labels)
    wanted = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(out.loss, wanted)
    items = torch.tensor(60)
    scaled = model(ids, labels=labels, num_items_in_batch=items).loss
    torch.testing.assert_close(scaled * 60, out.loss * (labels != -100).sum())


@both
def test_what_a_classifier_does_not_know_is_refused(cls, classifier, ids):
    with pytest.raises(TypeError, match=f"{cls.__name__}.forward: unknown argument 'label'"):
        classifier(cls)(ids, label=ids)
    hidden = classifier(cls)(ids, output_hidden_states=True).hidden_states
    assert len(hidden) == 3
    assert isinstance(classifier(cls)(ids, return_dict=False), tuple)


@both
def test_a_batch_in_parts_trains_as_the_batch_does(cls, classifier, ids, tmp_path):
    """Through transformers' Trainer, which asks the class who averages over the parts."""
    labels = [1, 2, 0, 1] if cls is SEQUENCES else [[1, 2, 0] * 3] * 4
    rows = [
        {"input_ids": row[:9], "attention_mask": torch.ones(9, dtype=torch.long), "labels": label}
        for row, label in zip([*ids, ids[0].flip(0)], labels, strict=True)
    ]

    def trained(at_once, model):
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=4 // at_once,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        Trainer(model, arguments, train_dataset=rows).train()
        return model.state_dict()

    llama = LLAMAS[cls]  # its loss goes by the name of the class
    as_ours = type(llama.__name__, (llama,), {"accepts_loss_kwargs": False})

    def stock():
        torch.manual_seed(2)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(
            **sizes, intermediate_size=32, vocab_size=97, num_labels=3, pad_token_id=PAD
        )
        return as_ours(config)

    # Transformers 5.4 with a newer accelerate divides twice, whatever the model.
    one, other = trained(4, stock()), trained(1, stock())
    if not torch.allclose(one["score.weight"], other["score.weight"], atol=1e-4):
        pytest.skip("this Trainer averages wrongly over the parts of a batch for a Llama, too")
    whole, parts = trained(4, classifier(cls)), trained(1, classifier(cls))
    before = classifier(cls).state_dict()
    assert not torch.allclose(whole["score.weight"], before["score.weight"], atol=1e-3)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, msg=name, **ORDER)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses transformers' older names
@both
def test_an_adapter_trains_on_a_classifier(cls, classifier, ids):
    task = "SEQ_CLS" if cls is SEQUENCES else "TOKEN_CLS"
    model = get_peft_model(
        classifier(cls), LoraConfig(task_type=task, target_modules=["query", "fc1"])
    )
    labels = torch.tensor([0, 1, 2]) if cls is SEQUENCES else ids % 3
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    out.loss.backward()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("score" in name for name in trained)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
