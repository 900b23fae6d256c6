"""The decoder's own laws: initialisation, caches, masks, checkpointing, generation."""

import math

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM

# Two float32 computations that only differ in the order of their sums.
ORDER = {"atol": 2e-5, "rtol": 1e-5}


def packed_mask(lengths: list[int]) -> torch.Tensor:
    """(1, 1, T, T), True where a query sees a key: causal inside each document."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return (document[:, None] == document[None, :]).tril()[None, None]


# --- initialisation ----------------------------------------------------------------------------


def test_layers_that_write_the_residual_stream_start_smaller():
    torch.manual_seed(0)
    config = TallyFormerConfig(vocab_size=300, hidden_size=128, num_attention_heads=2)
    model = TallyFormerForCausalLM(config)
    small = 0.02 / math.sqrt(2 * config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        else:
            wanted = small if ".proj." in name or ".fc2." in name else 0.02
            # The spread of n normal numbers is known to 1 / sqrt(2n); n is 16,384 or more.
            assert parameter.std().item() == pytest.approx(wanted, rel=0.03), name


def test_module_names_are_those_that_adapters_and_files_use(shape, build):
    model = build(**shape)
    leaves = {name.split(".")[-1] for name, _ in model.named_modules()}
    gate = {"gate"} if shape.get("mlp_type") == "swiglu" else set()
    assert {
        "query",
        "key",
        "value",
        "proj",
        "fc1",
        "fc2",
        "lm_head",
        "token_embed",
    } | gate <= leaves


# --- attention implementations and masks -------------------------------------------------------


def test_sdpa_and_eager_agree(shape, build, ids):
    sdpa, eager = build("sdpa", **shape), build("eager", **shape)
    padding = torch.ones_like(ids)
    padding[0, :4] = 0
    for mask in (None, padding, packed_mask([5, 6])):
        with torch.no_grad():
            a = sdpa(ids, attention_mask=mask).logits
            b = eager(ids, attention_mask=mask).logits
        seen = slice(4, None) if mask is padding else slice(None)  # padding rows mean nothing
        torch.testing.assert_close(a[:, seen], b[:, seen], **ORDER)


def test_a_float_mask_is_added_and_a_bool_mask_hides(build, ids):
    hide = packed_mask([4, 7])
    add = torch.zeros(hide.shape).masked_fill(~hide, torch.finfo(torch.float32).min)
    for attention in ("sdpa", "eager"):
        model = build(attention)
        with torch.no_grad():
            torch.testing.assert_close(
                model(ids, attention_mask=add).logits,
                model(ids, attention_mask=hide).logits,
                **ORDER,
            )


def test_no_mask_is_made_where_none_is_needed(build, ids, monkeypatch):
    seen = []

    def record(query, key, value, attn_mask=None, is_causal=False, **kwargs):
        seen.append((attn_mask, is_causal))
        return original(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    build()(ids, use_cache=False)
    assert seen == [(None, True)] * 2


@pytest.mark.parametrize("lengths", [[4, 7], [1, 9, 1], [11]])
def test_packed_documents_equal_separate_ones(shape, build, ids, lengths):
    model, row = build(**shape), ids[:1]
    restart = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        apart = torch.cat([model(part).logits for part in row.split(lengths, dim=1)], dim=1)
        by_mask = model(row, attention_mask=packed_mask(lengths), position_ids=restart).logits
        by_positions = model(row, position_ids=restart, use_cache=False).logits
    torch.testing.assert_close(by_mask, apart, **ORDER)
    torch.testing.assert_close(by_positions, apart, **ORDER)


def test_left_padding_changes_nothing(shape, build, ids):
    model = build(**shape)
    padded = torch.cat([torch.zeros(3, 4, dtype=ids.dtype), ids], dim=1)
    mask = (torch.arange(15) >= 4).long().expand(3, -1)
    with torch.no_grad():
        logits = model(padded, attention_mask=mask).logits[:, 4:]
    torch.testing.assert_close(logits, model(ids).logits.detach(), **ORDER)


def test_a_4d_mask_under_flash_attention_is_an_error(build, ids):
    model = build()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="4D attention_mask cannot be used with flash_attention_2"):
        model(ids, attention_mask=packed_mask([11]))


def test_a_later_token_never_changes_an_earlier_logit(shape, build, ids):
    model, changed = build(**shape), ids.clone()
    changed[:, 6:] = 50
    with torch.no_grad():
        a, b = model(ids).logits, model(changed).logits
    torch.testing.assert_close(a[:, :6], b[:, :6], **ORDER)
    assert not torch.allclose(a[:, 6:], b[:, 6:], atol=1e-2)


def test_both_or_neither_kind_of_input_is_an_error(build, ids):
    model = build()
    for inputs in ({}, {"input_ids": ids, "inputs_embeds": model.model.token_embed(ids)}):
        with pytest.raises(ValueError, match="give exactly one of input_ids and inputs_embeds"):
            model(**inputs)


def test_embeddings_may_replace_ids(build, ids):
    model = build()
    by_embedding = model(inputs_embeds=model.model.token_embed(ids)).logits
    assert torch.equal(by_embedding, model(ids).logits)


# --- caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_cache_changes_nothing_at_any_split(attention, shape, build, ids):
    model = build(attention, **shape)
    with torch.no_grad():
        whole = model(ids).logits
        for split in range(1, ids.shape[1]):
            cache = DynamicCache(config=model.config)
            first = model(ids[:, :split], past_key_values=cache).logits
            rest = model(ids[:, split:], past_key_values=cache).logits
            torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, **ORDER)


def test_a_static_cache_changes_nothing(build, ids):
    model = build()
    cache = StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in ids.split([6, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids).logits.detach(), **ORDER)


def test_training_keeps_no_cache_unless_told_to(build, ids):
    model = build()
    assert model(ids).past_key_values is not None
    model.train()
    assert model(ids).past_key_values is None
    assert model(ids, use_cache=True).past_key_values is not None


def test_positions_beyond_the_trained_context_compute(build, ids):
    model = build(max_position_embeddings=4)
    longer = torch.cat([ids, ids], dim=1)
    assert torch.isfinite(model(longer).logits).all()
    far = torch.arange(100_000, 100_000 + ids.shape[1])[None]
    with torch.no_grad():
        here, there = model(ids).logits, model(ids, position_ids=far, use_cache=False).logits
    # Relative positions: only the rounding of angles near 100,000 (2**-7 radian) differs.
    torch.testing.assert_close(here, there, atol=0.1, rtol=0)


# --- outputs -----------------------------------------------------------------------------------


def test_logits_to_keep_keeps_the_last_ones(build, ids):
    model = build()
    whole = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, whole[:, -2:], **ORDER)
    some = torch.tensor([0, 7])
    torch.testing.assert_close(model(ids, logits_to_keep=some).logits, whole[:, some], **ORDER)


def test_the_loss_is_the_mean_over_shifted_valid_labels(build, ids):
    model, labels = build(), ids.clone()
    labels[0, :5] = -100
    out = model(ids, labels=labels)
    wanted = torch.nn.functional.cross_entropy(
        out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    torch.testing.assert_close(out.loss, wanted)


def test_hidden_states_and_attentions_are_returned_on_request(build, ids):
    model = build("eager")
    out = model(ids, output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(3, 11, 32)] * 3
    assert [tuple(a.shape) for a in out.attentions] == [(3, 4, 11, 11)] * 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(3, 4, 11))
    assert isinstance(model(ids, return_dict=False), tuple)


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant, shape, build, ids):
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = build(**shape, dropout=0.1).train()
        if checkpointing:
            # transformers 5.23 renamed it, and warns of the older name.
            enable = getattr(
                model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
            )
            enable({"use_reentrant": reentrant})
        torch.manual_seed(3)  # the same dropout in both
        model(ids, labels=ids).loss.backward()
        return {name: p.grad for name, p in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_dropout_acts_in_training_alone(build, ids):
    model = build(dropout=0.5)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bfloat16_autocast_stays_close_and_keeps_float32_weights(attention, build, ids):
    model = build(attention, initializer_range=0.05)
    exact = model(ids).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(ids, labels=ids).loss
        logits = model(ids).logits
    loss.backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    # bfloat16 keeps 8 bits: a relative error of 2**-8 a product, over a few layers.
    torch.testing.assert_close(logits.float(), exact, atol=0.02, rtol=0.02)


def test_one_block_compiles_without_a_graph_break(build, ids):
    model = build("sdpa")
    x = model.model.token_embed(ids).detach()
    position = model.model.rotary(x, torch.arange(11)[None])
    block = torch.compile(model.model.blocks[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        block(x, position_embeddings=position),
        model.model.blocks[0](x, position_embeddings=position),
        **ORDER,
    )


def test_the_whole_model_compiles_without_a_graph_break(build, ids):
    model = build("sdpa").train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    mask = packed_mask([5, 6]).expand(3, 1, 11, 11)
    for attention_mask in (None, mask):
        torch.testing.assert_close(
            compiled(ids, attention_mask=attention_mask, use_cache=False).logits,
            model(ids, attention_mask=attention_mask, use_cache=False).logits,
            **ORDER,
        )


# --- generation and vocabulary -----------------------------------------------------------------


def test_generation_from_left_padded_rows_equals_generation_row_by_row(shape, build, ids):
    model = build(**shape)
    rows = [ids[0], ids[1, :5], ids[2, :8]]
    batch = torch.stack([torch.cat([torch.zeros(11 - len(r), dtype=r.dtype), r]) for r in rows])
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    together = model.generate(batch, attention_mask=(batch != 0).long(), **options)
    for row, got in zip(rows, together, strict=True):
        alone = model.generate(row[None], attention_mask=torch.ones_like(row[None]), **options)
        assert torch.equal(got[11:], alone[0, len(row) :])


def test_generation_is_the_same_with_every_cache(build, ids):
    model = build()
    options = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "do_sample": False,
    }
    without = model.generate(ids, use_cache=False, **options)
    assert torch.equal(model.generate(ids, **options), without)
    static = model.generate(ids, cache_implementation="static", disable_compile=True, **options)
    assert torch.equal(static, without)


def test_beam_search_with_every_beam_finds_the_likeliest_of_all_continuations(build, ids):
    model = build()
    options = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 2,
        "min_new_tokens": 2,
        "do_sample": False,
    }
    # As many beams as there are tokens make a search over two steps exhaustive.
    found = model.generate(ids, num_beams=97, **options)[:, 11:]
    tokens = torch.arange(97)
    for row, pair in zip(ids, found, strict=True):
        with torch.no_grad():
            first_V = model(row[None]).logits[0, -1].log_softmax(-1)
            longer = torch.cat([row.expand(97, -1), tokens[:, None]], dim=1)
            second_VV = model(longer).logits[:, -1].log_softmax(-1)
        both_VV = first_V[:, None] + second_VV
        both_VV[2] = both_VV[:, 2] = -math.inf  # the end of text may not come so early
        assert divmod(both_VV.argmax().item(), 97) == tuple(pair.tolist())
    greedy = model.generate(ids, **options)[:, 11:]
    assert not torch.equal(found, greedy), "a greedy search would pass too"


@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_can_grow(tied, build, ids):
    model = build(tie_word_embeddings=tied)
    before = model(ids).logits
    model.resize_token_embeddings(100, mean_resizing=False)
    assert model.config.vocab_size == 100
    assert (model.lm_head.weight is model.model.token_embed.weight) == tied
    after = model(torch.full_like(ids, 99)).logits
    assert after.shape[-1] == 100
    torch.testing.assert_close(model(ids).logits[..., :97], before)
