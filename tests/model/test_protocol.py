"""The classes under every supported transformers: names of arguments, and who passes them.

Up to 5.23 the cache is `past_key_values`, from 5.24 on `cache`. The installed version decides what
`generate` says, so `scripts/test_versions.py` runs these tests at both ends.
"""

import pytest
import tokenizers
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tallyformer.model.modeling_tallyformer import (
    TallyFormerForCausalLM,
    TallyFormerForSequenceClassification,
    TallyFormerForTokenClassification,
)
from tallyformer.model.protocol import CACHE_NAME, CACHE_NAMES

ORDER = {"atol": 2e-5, "rtol": 1e-5}
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


# --- two names of the cache --------------------------------------------------------------------


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_the_cache_is_read_under_either_name(name, shape, build, ids):
    model = build(**shape)
    with torch.no_grad():
        for module in (model, model.model):
            cache, whole = DynamicCache(), module(ids, use_cache=False)[0]
            first = module(ids[:, :4], **{name: cache})[0]
            assert cache.get_seq_length() == 4
            rest = module(ids[:, 4:], **{name: cache})[0]
            torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, **ORDER)


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_a_block_and_its_attention_read_the_cache_under_either_name(name, build, ids):
    model = build().model
    x_BTD = model.token_embed(ids)
    positions = model.rotary(x_BTD, torch.arange(11)[None])
    for module in (model.blocks[0], model.blocks[0].attention):
        cache = DynamicCache()
        module(x_BTD, position_embeddings=positions, **{name: cache})
        assert cache.get_seq_length() == 11


def test_the_output_has_the_cache_under_the_installed_name(build, ids):
    model = build()
    for output in (model(ids), model.model(ids)):
        assert CACHE_NAME in output
        assert output.past_key_values is getattr(output, CACHE_NAME)


def test_one_cache_under_both_names_is_one_and_two_are_refused(build, ids):
    model, cache = build(), DynamicCache()
    model(ids, past_key_values=cache, cache=cache)
    assert cache.get_seq_length() == 11
    for module in (model, model.model):
        with pytest.raises(TypeError, match="past_key_values and cache are two names of one"):
            module(ids, past_key_values=DynamicCache(), cache=DynamicCache())


def test_generation_reads_the_cache(shape, build, ids):
    """A class that does not know the name that `generate` uses sees one token at a time."""
    model = build(**shape)
    mask = torch.ones_like(ids)
    with_cache = model.generate(ids, attention_mask=mask, **GREEDY)
    assert torch.equal(
        with_cache, model.generate(ids, attention_mask=mask, use_cache=False, **GREEDY)
    )


def test_generation_goes_on_from_a_cache_under_the_installed_name(build, ids):
    model = build()
    mask = torch.ones_like(ids)
    whole = model.generate(ids, attention_mask=mask, **GREEDY)
    cache = DynamicCache()
    with torch.no_grad():
        model(ids[:, :6], **{CACHE_NAME: cache})
    assert torch.equal(
        model.generate(ids, attention_mask=mask, **{CACHE_NAME: cache}, **GREEDY), whole
    )


def together_and_alone(model, rows):
    """The new tokens of each row, generated in one continuous batch and one after another."""
    options = {"max_new_tokens": 5, "do_sample": False}
    found = model.generate_batch(
        rows,
        generation_config=GenerationConfig(eos_token_id=2, pad_token_id=0, **options),
        # Without these the pages take most of the machine's memory.
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64),
        progress_bar=False,
    )
    alone = [
        model.generate(
            torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            eos_token_id=2,
            pad_token_id=0,
            **options,
        )
        for row in rows
    ]
    return (
        [output.generated_tokens for output in found.values()],
        [ids[0, len(row) :].tolist() for ids, row in zip(alone, rows, strict=True)],
    )


@pytest.fixture(scope="module")
def batches_continuously():
    """Whether the installed versions do so rightly on this machine, with a stock Llama."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, intermediate_size=64, vocab_size=97, initializer_range=0.5)
    together, alone = together_and_alone(
        LlamaForCausalLM(config).eval(), [[5, 6, 7], [8, 9, 10, 11], [12, 13]]
    )
    return together == alone


def test_continuous_batching_answers_like_each_row_alone(shape, build, ids, batches_continuously):
    """More rows than the pages hold at once, so that some wait for others to end."""
    if not batches_continuously:
        pytest.skip("these versions of torch and transformers do it wrongly for a Llama, too")
    together, alone = together_and_alone(
        build(**shape), [ids[row % 3, : 3 + row].tolist() for row in range(6)]
    )
    assert together == alone


# --- names that nobody reads -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("past_key_value", "past_key_values"),
        ("cache_params", "cache"),
        ("attention_masks", "attention_mask"),
        ("logit_to_keep", "logits_to_keep"),
        ("label", "labels"),
        ("zzz", None),
    ],
)
def test_an_unknown_argument_is_refused_by_name(name, near, build, ids):
    hint = f"Did you mean {near}" if near else "Leave it out"
    with pytest.raises(TypeError, match=rf"ForCausalLM.forward: unknown argument '{name}'. {hint}"):
        build()(ids, **{name: None})


def test_every_class_refuses_what_it_does_not_know(build, ids):
    model = build().model
    x_BTD = model.token_embed(ids)
    positions = model.rotary(x_BTD, torch.arange(11)[None])
    with pytest.raises(TypeError, match=r"TallyFormerModel.forward: unknown argument 'labels'"):
        model(ids, labels=ids)
    for module in (model.blocks[0], model.blocks[0].attention):
        with pytest.raises(TypeError, match="unknown argument 'past'"):
            module(x_BTD, position_embeddings=positions, past=None)


def test_token_types_have_no_meaning_here(build, ids):
    model = build()
    assert torch.equal(model(ids, token_type_ids=None).logits, model(ids).logits)
    with pytest.raises(TypeError, match="unknown argument 'token_type_ids'"):
        model(ids, token_type_ids=torch.zeros_like(ids))


def test_an_attention_of_ones_own_gets_the_arguments_it_names(build, ids, monkeypatch):
    def doubling(module, query, key, value, attention_mask, factor=1.0, **kwargs):
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return sdpa(module, query, key, value * factor, attention_mask, **kwargs)

    model = build()
    monkeypatch.setitem(type(ALL_ATTENTION_FUNCTIONS)._global_mapping, "doubling", doubling)
    model.config._attn_implementation = "doubling"
    assert not torch.allclose(model(ids, factor=2.0).logits, model(ids).logits)
    with pytest.raises(TypeError, match="unknown argument 'factors'"):
        model(ids, factors=2.0)


def test_positions_in_their_older_form_are_positions(build, ids):
    model = build()
    later = torch.arange(5, 16)
    wanted = model(ids, position_ids=later[None], output_hidden_states=True)
    found = model(ids, cache_position=later, output_hidden_states=True)
    assert torch.equal(found.logits, wanted.logits)


def test_attention_in_both_directions_is_refused_unless_a_mask_says_it(build, ids):
    model = build()
    with pytest.raises(ValueError, match="is_causal=False"):
        model(ids, is_causal=False)
    everything = torch.ones(1, 1, 11, 11, dtype=torch.bool)
    both_ways = model(ids, attention_mask=everything, is_causal=False).logits
    assert not torch.allclose(both_ways, model(ids).logits)


# --- callers -----------------------------------------------------------------------------------


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    of_bytes = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    of_bytes.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    of_bytes.decoder = tokenizers.decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=of_bytes)


def test_the_loss_takes_the_arguments_of_transformers_loss(build, ids):
    model = build()
    mean = model(ids, labels=ids).loss
    by_sum = model(ids, labels=ids, num_items_in_batch=torch.tensor(30)).loss
    torch.testing.assert_close(by_sum, mean)  # 3 rows of 10 shifted labels
    shifted = torch.nn.functional.pad(ids, (0, 1), value=-100)[:, 1:].contiguous()
    torch.testing.assert_close(model(ids, labels=ids, shift_labels=shifted).loss, mean)
    labels = ids.clone()
    labels[:, :5] = 7
    partly = model(ids, labels=labels, ignore_index=7).loss
    labels[:, :5] = -100
    ids_without_7 = labels.masked_fill(labels == 7, -100)
    torch.testing.assert_close(partly, model(ids, labels=ids_without_7).loss)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_transformers_trainer_trains_and_evaluates(accumulate, build, ids, tmp_path):
    rows = [
        {"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in ids
    ]
    model = build()
    before = model(ids, labels=ids).loss.item()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulate,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_transformers_trainer_smooths_the_labels_of_the_next_token(build, ids, tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in ids]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        label_smoothing_factor=0.2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = build()
    found = Trainer(model, arguments, eval_dataset=rows).evaluate()["eval_loss"]
    wanted = torch.nn.functional.cross_entropy(
        model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), label_smoothing=0.2
    )
    assert found == pytest.approx(wanted.item(), rel=1e-5)


def test_a_pipeline_knows_every_model_with_a_head(build, caplog):
    config = build().config
    for task, cls in {
        "text-generation": TallyFormerForCausalLM,
        "text-classification": TallyFormerForSequenceClassification,
        "token-classification": TallyFormerForTokenClassification,
    }.items():
        pipeline(task, model=cls(config), tokenizer=byte_tokenizer())
    assert "not supported" not in caplog.text


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses transformers' older names
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(task_type="CAUSAL_LM", target_modules=["query", "fc1"]),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ],
    ids=["lora", "prefix tuning", "prompt tuning"],
)
def test_peft_trains_every_kind_of_adapter(config, build, ids):
    model = get_peft_model(build(), config)
    model(ids, labels=ids, attention_mask=torch.ones_like(ids)).loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_with_an_adapter_generates(build, ids):
    model = get_peft_model(build(), LoraConfig(task_type="CAUSAL_LM", target_modules=["query"]))
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **GREEDY)
    wanted = build().generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)
    assert torch.equal(found, wanted)  # a fresh adapter changes nothing


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "top_k": 5},
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": True},
        {"prompt_lookup_num_tokens": 2},
        {"output_scores": True, "output_attentions": True, "return_dict_in_generate": True},
        {"prefill_chunk_size": 4},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_way_of_generating_runs(options, build, ids):
    model = build("eager" if "output_attentions" in options else "sdpa")
    row = ids[:1]
    torch.manual_seed(0)
    found = model.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=4, min_new_tokens=4, **options
    )
    assert found[0].shape[-1] == 15


def test_an_assistant_model_changes_nothing(build, ids):
    model, row = build(), ids[:1]
    options = {"attention_mask": torch.ones_like(row), **GREEDY}
    wanted = model.generate(row, **options)
    assert torch.equal(model.generate(row, assistant_model=build(), **options), wanted)


def test_a_draft_by_the_lower_blocks_alone_changes_nothing(shape, build, ids):
    """transformers leaves early by lowering `config.num_hidden_layers` while it drafts."""
    model, row = build(**shape), ids[:1]
    options = {"attention_mask": torch.ones_like(row), **GREEDY}
    wanted = model.generate(row, **options)
    assert torch.equal(model.generate(row, assistant_early_exit=1, **options), wanted)


def test_generation_ends_after_a_stop_string(build):
    """`generate` hands the tokenizer that it reads the text with on to the model."""
    tokenizer = byte_tokenizer()
    letters = tokenizer.convert_tokens_to_ids(list("abcdefghijklmnop"))
    model = build(vocab_size=len(tokenizer), initializer_range=1.0)
    row = tokenizer("Profit is", return_tensors="pt").input_ids
    options = {
        "attention_mask": torch.ones_like(row),
        "prefix_allowed_tokens_fn": lambda batch, ids: letters,
        "max_new_tokens": 12,
        "do_sample": False,
    }
    whole = tokenizer.decode(model.generate(row, **options)[0])
    answer = whole.removeprefix("Profit is")
    stop = answer[3:5]
    found = model.generate(row, stop_strings=[stop], tokenizer=tokenizer, **options)
    assert len(answer) == 12 > answer.index(stop) + 2
    assert tokenizer.decode(found[0]) == whole[: whole.index(stop, 9) + 2]
