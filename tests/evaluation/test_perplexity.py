from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
)

from tallyformer.data.batch import Batch
from tallyformer.evaluation.perplexity import measure_loss
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer.tokenizer import Tokenizer
from tallyformer.training import chunked_head
from tallyformer.training.precision import Precision
from tallyformer.training.validation import TextLoss

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)
DOCUMENTS = ["A bond pays a coupon.", "A share is a part of a company.", "Yields rise: Ω 5%."]


def _batch(tokenizer: Tokenizer, documents: list[str], pad_to: int) -> Batch:
    """Documents in one row, each `text eot`, labels shifted within the document."""
    ids: list[int] = []
    labels: list[int] = []
    segments: list[int] = []
    for number, document in enumerate(documents):
        whole = [*tokenizer.encode(document), tokenizer.eot_id]
        ids += whole[:-1]
        labels += whole[1:]
        segments += [number] * (len(whole) - 1)
    missing = pad_to - len(ids)
    ids += [tokenizer.pad_id] * missing
    labels += [-100] * missing
    segments += [len(documents)] * missing
    as_row = [torch.tensor([row]) for row in (ids, labels, segments)]
    return Batch(as_row[0], as_row[1], as_row[2].int())


def _alone(model: PreTrainedModel, tokenizer: Tokenizer, document: str) -> float:
    """Nats of one document by transformers' own loss, on its own."""
    ids = torch.tensor([[*tokenizer.encode(document), tokenizer.eot_id]])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)


def test_packed_documents_lose_what_transformers_says_they_lose_alone(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer
) -> None:
    batch = _batch(tokenizer, DOCUMENTS, pad_to=100)
    found = measure_loss(model, [batch], tokenizer.token_bytes(), precision=FP32)
    expected = sum(_alone(model, tokenizer, document) for document in DOCUMENTS)
    # float32 sums in another order; 60 terms of about 10 nats.
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert found.tokens == sum(len(tokenizer.encode(d)) for d in DOCUMENTS)
    # The first id of each document is not predicted.
    first = sum(len(tokenizer.decode(tokenizer.encode(d)[:1]).encode()) for d in DOCUMENTS)
    assert found.bytes == sum(len(d.encode()) for d in DOCUMENTS) - first


def test_the_loss_does_not_depend_on_slices_batches_or_padding(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(batches: list[Batch]) -> TextLoss:
        return measure_loss(model, batches, tokenizer.token_bytes(), precision=FP32)

    whole = measure([_batch(tokenizer, DOCUMENTS, pad_to=100)])
    apart = measure([_batch(tokenizer, [d], pad_to=40) for d in DOCUMENTS])
    monkeypatch.setattr(chunked_head, "_CHUNK_ELEMENTS", {"cpu": 64 * tokenizer.vocab_size})
    sliced = measure([_batch(tokenizer, DOCUMENTS, pad_to=100)])
    for other in (apart, sliced):
        assert other.nats == pytest.approx(whole.nats, rel=1e-5)
        assert (other.tokens, other.bytes) == (whole.tokens, whole.bytes)


def test_documents_that_may_see_each_other_give_another_loss(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer
) -> None:
    batch = _batch(tokenizer, DOCUMENTS, pad_to=100)
    losses = [
        measure_loss(
            model,
            [batch],
            tokenizer.token_bytes(),
            precision=FP32,
            attend_across_documents=across,
        ).nats
        for across in (False, True)
    ]
    assert abs(losses[0] - losses[1]) > 0.01


def _foreign(name: str, vocabulary: int) -> PreTrainedModel:
    """A tiny model of another class; its weights are large, so that a wrong mask shows."""
    torch.manual_seed(0)
    ids = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0}
    small = {"hidden_size": 16, "initializer_range": 0.5}
    if name == "bloom":
        return BloomForCausalLM(BloomConfig(**ids, **small, n_layer=2, n_head=2)).eval()
    if name == "gpt-neo":
        kinds = [[["global", "local"], 1]]
        shape = {"num_layers": 2, "num_heads": 2, "attention_types": kinds, "window_size": 8}
        config = GPTNeoConfig(**ids, **small, **shape, max_position_embeddings=128)
        return GPTNeoForCausalLM(config).eval()
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
    gpt2 = GPT2LMHeadModel(GPT2Config(**ids, **shape, initializer_range=0.5)).eval()
    gpt2.set_attn_implementation(name.removeprefix("gpt2-"))
    return gpt2


@pytest.mark.parametrize("name", ["gpt2-sdpa", "gpt2-eager", "gpt-neo", "bloom"])
def test_a_model_of_any_class_loses_on_packed_documents_what_it_loses_alone(
    name: str, tokenizer: Tokenizer
) -> None:
    """GPT-2 (eager) and GPT-Neo add their mask to the scores; Bloom takes no mask of pairs."""
    model = _foreign(name, tokenizer.vocab_size)
    rows = [_batch(tokenizer, documents, 60) for documents in (DOCUMENTS[:2], DOCUMENTS[2:])]
    batch = Batch(
        torch.cat([row.input_ids for row in rows]),
        torch.cat([row.labels for row in rows]),
        torch.cat([row.segments for row in rows if row.segments is not None]),
    )
    found = measure_loss(model, [batch], tokenizer.token_bytes(), precision=FP32)
    expected = sum(_alone(model, tokenizer, document) for document in DOCUMENTS)
    # float32 sums in another order.
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert found.tokens == sum(len(tokenizer.encode(d)) for d in DOCUMENTS)


def test_measuring_leaves_the_mode_as_it_was(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer
) -> None:
    model.train()
    batch = _batch(tokenizer, DOCUMENTS, pad_to=100)
    losses = {
        measure_loss(model, [batch], tokenizer.token_bytes(), precision=FP32).nats for _ in range(2)
    }
    assert model.training
    assert len(losses) == 1  # no dropout
    model.eval()


def test_a_uniform_model_has_the_vocabulary_as_perplexity(tokenizer: Tokenizer) -> None:
    nats = 10 * math.log(tokenizer.vocab_size)
    loss = TextLoss(nats, tokens=10, bytes=20)
    assert loss.perplexity == pytest.approx(tokenizer.vocab_size)
    assert loss.bits_per_byte == pytest.approx(math.log2(tokenizer.vocab_size) / 2)


def test_nothing_measured_is_not_a_number_and_a_huge_loss_is_infinite() -> None:
    assert math.isnan(TextLoss().mean) and math.isnan(TextLoss().bits_per_byte)
    assert TextLoss(1e6, 1, 1).perplexity == math.inf


def test_batches_without_labels_count_for_nothing(
    model: TallyFormerForCausalLM, tokenizer: Tokenizer
) -> None:
    empty = Batch(torch.zeros(1, 8, dtype=torch.long), torch.full((1, 8), -100), None)
    found = measure_loss(model, [empty], tokenizer.token_bytes(), precision=FP32)
    assert found == TextLoss()
    assert np.isnan(found.mean)
