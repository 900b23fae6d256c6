"""Every way of generating gives what the plain one does: caches, assistants, exported programs."""

import pytest
import torch
from transformers import Cache, DynamicCache, GenerationConfig, StaticCache
from transformers.cache_utils import DynamicSlidingWindowLayer, StaticSlidingWindowLayer
from transformers.integrations.executorch import convert_and_export_with_cache

# Two float32 computations that only differ in the order of their sums.
ORDER = {"atol": 2e-5, "rtol": 1e-5}
GREEDY = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
LENGTH = 24
"""Of every cache that has one; no text here is longer."""


def _sliding(layer):
    """A cache of windows no text here outgrows."""

    def make(config):
        size = {"max_cache_len": LENGTH} if layer is StaticSlidingWindowLayer else {}
        layers = range(config.num_hidden_layers)
        return Cache(layers=[layer(sliding_window=LENGTH, **size) for _ in layers])

    return make


CACHES = {
    "dynamic": lambda config: DynamicCache(config=config),
    "dynamic without configuration": lambda config: DynamicCache(),
    "static": lambda config: StaticCache(config=config, max_cache_len=LENGTH),
    "dynamic sliding": _sliding(DynamicSlidingWindowLayer),
    "static sliding": _sliding(StaticSlidingWindowLayer),
}
both_attentions = pytest.mark.parametrize("attention", ["sdpa", "eager"])


# --- caches ------------------------------------------------------------------------------------


@both_attentions
@pytest.mark.parametrize("kind", CACHES)
def test_no_cache_changes_a_logit_wherever_the_text_is_split(kind, attention, shape, build, ids):
    model = build(attention, **shape)
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        for split in ([1] * 11, [6, 1, 4], [4, 7], [10, 1]):
            cache = CACHES[kind](model.config)
            parts = [model(part, past_key_values=cache).logits for part in ids.split(split, dim=1)]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, **ORDER)


@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_remembers_what_is_padding(kind, build, ids):
    model = build()
    padded = torch.cat([torch.zeros(3, 4, dtype=ids.dtype), ids], dim=1)
    mask = (torch.arange(15) >= 4).long().expand(3, -1)
    cache, seen, parts = CACHES[kind](model.config), 0, []
    with torch.no_grad():
        for part in padded.split([7, 5, 1, 2], dim=1):
            seen += part.shape[1]
            position = (mask.cumsum(-1) - 1).clamp(min=0)[:, seen - part.shape[1] : seen]
            given = {"attention_mask": mask[:, :seen], "position_ids": position}
            parts.append(model(part, past_key_values=cache, **given).logits)
        alone = model(ids, use_cache=False).logits
    torch.testing.assert_close(torch.cat(parts, dim=1)[:, 4:], alone, **ORDER)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_is_the_same_with_and_without_a_cache(cache, beams, shape, build, ids):
    model = build(**shape)
    mask = (torch.arange(11) >= torch.tensor([[0], [3], [7]])).long()
    options = {"attention_mask": mask, "num_beams": beams, **GREEDY}
    wanted = model.generate(ids, use_cache=False, **options)
    found = model.generate(ids, cache_implementation=cache, disable_compile=True, **options)
    assert torch.equal(found, wanted)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="an offloaded cache moves keys between a GPU and the CPU"
)
@pytest.mark.parametrize("cache", ["offloaded", "offloaded_static"])
def test_generation_is_the_same_with_an_offloaded_cache(cache, build, ids):
    model, ids = build().cuda(), ids.cuda()
    options = {"attention_mask": torch.ones_like(ids), **GREEDY}
    wanted = model.generate(ids, use_cache=False, **options)
    found = model.generate(ids, cache_implementation=cache, disable_compile=True, **options)
    assert torch.equal(found, wanted)


# --- faster ways to the same tokens ------------------------------------------------------------


def test_an_assistant_that_is_often_wrong_changes_nothing(shape, build, ids):
    """What is rejected has to leave the cache again."""
    model, row = build(**shape), ids[:1]
    assistant = build(**shape, num_hidden_layers=1)
    options = {"attention_mask": torch.ones_like(row), **GREEDY}
    wanted = model.generate(row, **options)
    assert not torch.equal(assistant.generate(row, **options), wanted), "it is never wrong"
    assert torch.equal(model.generate(row, assistant_model=assistant, **options), wanted)


def test_looking_up_the_prompt_changes_nothing(shape, build, ids):
    model, row = build(**shape), ids[:1].repeat(1, 2)
    options = {"attention_mask": torch.ones_like(row), **GREEDY}
    wanted = model.generate(row, **options)
    found = model.generate(row, prompt_lookup_num_tokens=3, **options)
    # transformers 5.4 takes one more token than it was asked for where a guess is right to its end.
    assert torch.equal(found[:, : wanted.shape[1]], wanted)


def test_a_prompt_read_in_pieces_changes_nothing(shape, build, ids):
    model = build(**shape)
    options = {"attention_mask": torch.ones_like(ids), **GREEDY}
    wanted = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, prefill_chunk_size=4, **options), wanted)


def test_a_prompt_of_embeddings_is_answered_like_its_ids(shape, build, ids):
    model = build(**shape)
    options = {"attention_mask": torch.ones_like(ids), **GREEDY}
    wanted = model.generate(ids, **options)[:, 11:]
    embedded = model.model.token_embed(ids)
    assert torch.equal(model.generate(inputs_embeds=embedded, **options), wanted)


# --- exported programs -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.parametrize(
    ("kind", "strict"),
    [("tally", True), ("tally", False), ("post", False), ("every bias, untied", False)],
)
def test_an_exported_program_gives_the_same_logits_at_any_size(kind, strict, shapes, build, ids):
    model = build(**shapes[kind])
    sizes = {0: torch.export.Dim("B", max=8), 1: torch.export.Dim("T", min=2, max=32)}
    program = torch.export.export(
        model,
        (ids,),
        {"attention_mask": torch.ones_like(ids), "use_cache": False},
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes, "use_cache": None},
        strict=strict,
    ).module()
    for text in (ids, ids[:1, :5], ids.repeat(2, 2)):
        mask = torch.ones_like(text)
        mask[-1, :2] = 0
        given = {"attention_mask": mask, "use_cache": False}
        with torch.no_grad():
            torch.testing.assert_close(
                program(text, **given).logits, model(text, **given).logits, **ORDER
            )


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
def test_an_exported_program_with_a_static_cache_reads_on_token_by_token(build, ids):
    model, row = build(), ids[:1]
    model.generation_config = GenerationConfig(
        use_cache=True,
        cache_implementation="static",
        cache_config={"batch_size": 1, "max_cache_len": LENGTH, "device": "cpu"},
    )
    program = convert_and_export_with_cache(model).module()
    found = [
        program(input_ids=row[:, at : at + 1], cache_position=torch.tensor([at]))
        for at in range(row.shape[1])
    ]
    wanted = model(row, use_cache=False).logits
    torch.testing.assert_close(torch.cat(found, dim=1), wanted, **ORDER)
