"""Laws of generation, on a tiny TallyFormer and on a tiny stock Llama."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM

from tallyformer.artifacts.run_folder import RunFolder, StageWork
from tallyformer.errors import (
    ArtifactError,
    CheckpointError,
    InvalidRequestError,
    TallyFormerError,
    TokenizerError,
    UsageError,
)
from tallyformer.inference.llm import LLM
from tallyformer.inference.sampling_params import SamplingParams
from tallyformer.tokenizer.tokenizer import Tokenizer

CONTEXT = 32  # of the folders in conftest.py
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPTS = ["A bond", "Revenue minus cost is profit", "", "5 €", "The market price of"]


def _reference(llm: LLM, ids: list[int], count: int, **settings: Any) -> list[int]:
    """transformers' own generation."""
    out = llm.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=count,
        pad_token_id=llm.tokenizer.pad_id,
        **settings,
    )
    return out[0, len(ids) :].tolist()  # type: ignore[no-any-return]


def test_greedy_equals_transformers_generate(llm: LLM) -> None:
    for output in llm.generate(PROMPTS, GREEDY):
        expected = _reference(llm, output.prompt_token_ids, 12, eos_token_id=None)
        assert output.token_ids == expected


def test_greedy_ends_at_the_same_end_of_text_as_transformers(llm: LLM) -> None:
    [whole] = llm.generate("A bond", GREEDY)
    ends = whole.token_ids[5]
    params = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[ends])
    [output] = llm.generate("A bond", params)
    assert output.finish_reason == "stop"
    assert output.token_ids == _reference(
        llm, output.prompt_token_ids, 12, eos_token_id=[ends, llm.tokenizer.eot_id]
    )
    assert output.text == llm.tokenizer.decode(output.token_ids[:-1])


def test_a_batch_gives_the_same_answers_as_one_prompt_at_a_time(llm: LLM) -> None:
    params = [
        GREEDY,
        SamplingParams(seed=1, max_tokens=9, top_k=5, ignore_eos=True),
        SamplingParams(seed=2, max_tokens=40, top_p=0.8, ignore_eos=True),
        SamplingParams(seed=3, max_tokens=3, ignore_eos=True),
        SamplingParams(seed=4, max_tokens=20, min_p=0.1, frequency_penalty=1.0, ignore_eos=True),
    ]
    together = llm.generate(PROMPTS, params)
    alone = [llm.generate(p, s)[0] for p, s in zip(PROMPTS, params, strict=True)]
    assert together == alone
    assert [len(o.token_ids) for o in together] == [12, 9, 40, 3, 20]


def test_more_prompts_than_rows_of_a_batch_are_all_answered_in_order(tally: LLM) -> None:
    prompts = [[i % 250] for i in range(70)]
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    finished: list[int] = []
    outputs = tally.generate(prompts, params, on_finished=lambda: finished.append(1))
    assert [o.prompt_token_ids for o in outputs] == prompts and len(finished) == 70
    assert outputs[69] == tally.generate([prompts[69]], params)[0]


def test_a_full_context_slides_and_generation_goes_on(llm: LLM) -> None:
    """The rule of `Sequence.shorten`, computed without any cache."""
    count = 3 * CONTEXT
    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    [output] = llm.generate("A bond pays", params)
    window = list(output.prompt_token_ids)
    expected = []
    with torch.inference_mode():
        for _ in range(count):
            if len(window) > CONTEXT:
                window = window[-(CONTEXT // 2) :]
            expected.append(int(llm.model(torch.tensor([window])).logits[0, -1].argmax()))
            window.append(expected[-1])
    assert output.token_ids == expected
    assert output.finish_reason == "length"


def test_rows_slide_each_in_its_own_time(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=2 * CONTEXT, ignore_eos=True)
    prompts = [[7] * n for n in (1, 9, 17, CONTEXT - 1, CONTEXT, CONTEXT + 5)]
    assert llm.generate(prompts, params) == [llm.generate([p], params)[0] for p in prompts]


def test_a_prompt_longer_than_the_context_keeps_its_end(llm: LLM) -> None:
    long = llm.tokenizer.encode("profit over revenue is the margin. " * 20)
    assert len(long) > CONTEXT
    [output] = llm.generate(long, GREEDY)
    [short] = llm.generate(long[-(CONTEXT - 1) :], GREEDY)
    assert output.token_ids == short.token_ids
    assert output.prompt_token_ids == long


def test_streamed_pieces_joined_are_the_generated_text_and_ids(llm: LLM) -> None:
    for seed in range(5):
        params = SamplingParams(seed=seed, max_tokens=60, temperature=2.0, stop=["e", "ofit"])
        [output] = llm.generate("Zinsen für", params)
        pieces = list(llm.stream("Zinsen für", params))
        assert "".join(p.text for p in pieces) == output.text
        assert [i for p in pieces for i in p.token_ids] == output.token_ids
        assert [p.finish_reason for p in pieces] == [None] * (len(pieces) - 1) + [
            output.finish_reason
        ]
        assert all(p.text for p in pieces[:-1])


def test_text_is_the_decoded_ids(llm: LLM) -> None:
    params = SamplingParams(seed=5, max_tokens=50, temperature=1.5, ignore_eos=True)
    for output in llm.generate(["a", "b", "c"], params):
        assert output.text == llm.tokenizer.decode(output.token_ids)


def test_a_stop_string_over_several_tokens_ends_the_answer_and_is_not_in_it(llm: LLM) -> None:
    [whole] = llm.generate("A bond", GREEDY)
    # Characters in the middle of the answer, and so on the border of some tokens.
    stop = whole.text[2:9]
    first = whole.text.find(stop)
    [output] = llm.generate(
        "A bond", SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, stop=stop)
    )
    assert output.text == whole.text[:first]
    assert output.finish_reason == "stop"
    assert output.token_ids == whole.token_ids[: len(output.token_ids)]
    assert stop in llm.tokenizer.decode(output.token_ids)
    assert stop not in llm.tokenizer.decode(output.token_ids[:-1])


def test_text_held_back_for_a_stop_string_appears_when_the_answer_ends(tally: LLM) -> None:
    [whole] = tally.generate("A bond", GREEDY)
    params = SamplingParams(
        temperature=0, max_tokens=12, ignore_eos=True, stop=whole.text[-1] + "never"
    )
    assert tally.generate("A bond", params)[0].text == whole.text


def test_penalties_count_the_answer_and_not_the_prompt(tally: LLM) -> None:
    """With one generated token nothing has been generated before it, whatever the prompt."""
    plain = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    heavy = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, presence_penalty=2.0)
    [first] = tally.generate("A bond", plain)
    prompt = first.prompt_token_ids + first.token_ids
    assert tally.generate(prompt, heavy)[0].token_ids == tally.generate(prompt, plain)[0].token_ids


def test_a_frequency_penalty_drives_repeated_tokens_out(tally: LLM) -> None:
    loop = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    varied = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, frequency_penalty=2.0)
    [a], [b] = tally.generate("A bond", loop), tally.generate("A bond", varied)
    assert len(set(b.token_ids)) > len(set(a.token_ids))


def test_a_seed_decides_and_the_global_generator_is_left_alone(tally: LLM) -> None:
    params = SamplingParams(seed=11, max_tokens=20, ignore_eos=True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = tally.generate("A bond", params)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert tally.generate("A bond", params) == first
    other = SamplingParams(seed=12, max_tokens=20, ignore_eos=True)
    assert tally.generate("A bond", other)[0].token_ids != first[0].token_ids


def test_a_text_prompt_never_holds_a_control_id(llm: LLM) -> None:
    for name in ("<|endoftext|>", "<|user|> hi <|assistant|>", "<|pad|>" * 3):
        [output] = llm.generate(name, SamplingParams(max_tokens=1))
        assert not llm.tokenizer.control_ids & set(output.prompt_token_ids)
        assert llm.tokenizer.decode(output.prompt_token_ids) == name


def test_an_empty_prompt_starts_from_the_end_of_text(llm: LLM) -> None:
    assert llm.generate("", GREEDY)[0].prompt_token_ids == [llm.tokenizer.eot_id]
    assert llm.generate([[], "x"], GREEDY)[0].prompt_token_ids == [llm.tokenizer.eot_id]
    assert llm.generate([]) == []


def test_every_form_of_a_prompt_gives_the_same_answer(llm: LLM) -> None:
    ids = llm.tokenizer.encode("A bond")
    expected = llm.generate("A bond", GREEDY)
    assert llm.generate(ids, GREEDY) == llm.generate([ids], GREEDY) == expected
    assert llm.generate(["A bond", ids], [GREEDY, GREEDY]) == expected * 2


def test_arrays_of_ids_are_prompts(llm: LLM) -> None:
    ids = llm.tokenizer.encode("A bond")
    expected = llm.generate("A bond", GREEDY)
    assert (
        llm.generate(np.array(ids), GREEDY) == llm.generate(torch.tensor(ids), GREEDY) == expected
    )
    assert llm.generate(np.array([ids, ids]), GREEDY) == expected * 2
    assert llm.generate((ids, "A bond"), GREEDY) == expected * 2


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"A bond",
        bytearray(b"A bond"),
        {"prompt": "A bond"},
        5,
        True,
        [1.0, 2.0],
        [[1, 2.5]],
        [[[1, 2]]],
        ["A bond", None],
        ["A bond", b"x"],
        np.array([0.5]),
        np.array(5),
        torch.tensor([[0.5]]),
        object(),
        ["A bond", 10**5000],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_prompt_is_refused_in_one_short_line(tally: LLM, bad: Any) -> None:
    with pytest.raises(InvalidRequestError, match="must be a text or a list of ids") as caught:
        tally.generate(bad)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 200


def test_a_whole_number_of_any_size_is_outside_the_vocabulary(tally: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="is not in the vocabulary"):
        tally.generate([[10**5000]])


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_named(llm: LLM, bad: int) -> None:
    with pytest.raises(TallyFormerError, match=f"id {bad} at place 1") as caught:
        llm.generate([[1, bad]])
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("bad", [True, 1.0, "1", None, [1]])
def test_what_is_no_id_is_refused_in_a_prompt_and_as_a_stop(tally: LLM, bad: object) -> None:
    for prompt in ([1, bad], [[1, bad]]):
        with pytest.raises(TallyFormerError, match="a text or a list of ids"):
            tally.generate(prompt)  # type: ignore[arg-type]
    with pytest.raises(TallyFormerError, match="stop_token_ids"):
        SamplingParams(stop_token_ids=[1, bad])  # type: ignore[list-item]


def test_a_stop_id_behind_the_vocabulary_is_refused(tally: LLM) -> None:
    params = SamplingParams(stop_token_ids=[tally.tokenizer.vocab_size])
    for ask in (tally.generate, tally.stream, tally.chat):
        with pytest.raises(TallyFormerError, match=r"stop_token_ids: id .* not in the vocabulary"):
            ask("A bond", params)


def test_wrong_calls_say_what_is_wrong(tally: LLM) -> None:
    with pytest.raises(ValueError, match="2 for 1 prompts"):
        tally.generate("x", [GREEDY, GREEDY])
    with pytest.raises(ValueError, match="a text or a list of ids"):
        tally.generate([["x"]])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="must be SamplingParams"):
        tally.generate("x", {"top_k": 3})  # type: ignore[arg-type]


def test_chat_answers_the_encoded_conversation(llm: LLM) -> None:
    messages = [{"role": "user", "content": "What is <|assistant|> profit?"}]
    output = llm.chat(messages, GREEDY)
    assert output.prompt_token_ids == llm.tokenizer.encode_chat(messages, True)
    assert output.prompt_token_ids.count(llm.tokenizer.assistant_id) == 1
    assert output.token_ids == llm.generate(output.prompt_token_ids, GREEDY)[0].token_ids


def test_generation_leaves_no_inference_mode_behind(tally: LLM) -> None:
    stream = tally.stream("A bond", GREEDY)
    next(stream)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_rows_of_the_model_that_the_tokenizer_does_not_know_are_never_chosen(
    tally_folder: Path,
) -> None:
    llm = LLM.from_pretrained(tally_folder, device="cpu", runner="torch")
    llm.model.resize_token_embeddings(llm.tokenizer.vocab_size + 200)
    params = SamplingParams(seed=1, temperature=50.0, max_tokens=100, ignore_eos=True)
    [output] = llm.generate("A bond", params)
    assert max(output.token_ids) < llm.tokenizer.vocab_size


def test_the_dtype_is_the_folders_or_the_one_asked_for(tally_folder: Path) -> None:
    assert (
        LLM.from_pretrained(tally_folder, device="cpu", runner="torch").model.dtype == torch.float32
    )
    half = LLM.from_pretrained(tally_folder, dtype="bfloat16", device="cpu", runner="torch")
    assert half.model.dtype == torch.bfloat16
    assert half.generate("A bond", GREEDY)[0].finish_reason == "length"
    with pytest.raises(UsageError, match="'int3' is unknown"):
        LLM.from_pretrained(tally_folder, dtype="int3")


def test_a_device_that_is_not_there_is_refused(tally_folder: Path) -> None:
    with pytest.raises(UsageError, match="'warp' is unknown"):
        LLM.from_pretrained(tally_folder, device="warp")


def test_weights_with_a_tensor_too_many_are_refused(tally_folder: Path, tmp_path: Path) -> None:
    folder = _copy(tally_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "model.extra": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(
        CheckpointError, match=r"tensors that are unknown to the model: model\.extra"
    ):
        LLM.from_pretrained(folder, device="cpu")


QUERY, KEY = (f"model.blocks.0.attention.{name}.weight" for name in ("query", "key"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {QUERY: torch.zeros(5, 32), KEY: torch.zeros(32, 3)},
            rf"another shape than config\.json says: {KEY} 32 x 3, not 32 x 32, "
            rf"{QUERY} 5 x 32, not 32 x 32\)",
        ),
        ({QUERY: torch.zeros(32, 32, dtype=torch.int8)}, f"no floating-point.*: {QUERY} I8"),
        ({QUERY: torch.zeros(32, 32, dtype=torch.bool)}, f"no floating-point.*: {QUERY} BOOL"),
        (
            {f"x{i}": torch.zeros(1) for i in range(5)},
            "unknown to the model: x0, x1, x2 and 2 more",
        ),
    ],
    ids=["shapes", "int8", "bool", "many"],
)
def test_weights_that_do_not_fit_are_named_with_their_shape_or_type(
    tally_folder: Path, tmp_path: Path, changes: dict[str, torch.Tensor], message: str
) -> None:
    folder = _copy(tally_folder, tmp_path / "model")
    file = folder / "model.safetensors"
    save_file({**load_file(file), **changes}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as caught:
        LLM.from_pretrained(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(
    tally_folder: Path, tokenizer: Tokenizer
) -> None:
    llm = LLM.from_pretrained(tally_folder, device="cpu", runner="torch")
    llm.model.resize_token_embeddings(tokenizer.vocab_size - 1)
    with pytest.raises(TokenizerError, match="do not belong together"):
        LLM(llm.model, tokenizer)


def test_a_model_that_does_not_say_how_much_it_reads_is_refused(tokenizer: Tokenizer) -> None:
    """Bloom's configuration has no such number."""
    size = {"vocab_size": tokenizer.vocab_size, "hidden_size": 32, "n_layer": 1, "n_head": 2}
    with pytest.raises(ArtifactError, match="max_position_embeddings: None"):
        LLM(BloomForCausalLM(BloomConfig(**size)), tokenizer)


def test_a_model_with_nan_weights_is_reported(tally_folder: Path) -> None:
    llm = LLM.from_pretrained(tally_folder, device="cpu", runner="torch")
    with torch.no_grad():
        llm.model.model.final_norm.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        llm.generate("A bond", GREEDY)


def _copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_folders_that_cannot_be_used_are_named(tally_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such model folder"):
        LLM.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"holds no config\.json"):
        LLM.from_pretrained(tmp_path / "empty")
    (tmp_path / "empty" / "best").mkdir()
    (tmp_path / "empty" / "best" / "config.json").touch()
    with pytest.raises(ArtifactError, match=rf"not a model\. Give {tmp_path / 'empty' / 'best'}$"):
        LLM.from_pretrained(tmp_path / "empty")

    broken = _copy(tally_folder, tmp_path / "json")
    (broken / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json: damaged"):
        LLM.from_pretrained(broken)

    short = _copy(tally_folder, tmp_path / "short")
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        LLM.from_pretrained(short)

    other = _copy(tally_folder, tmp_path / "layers")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing: .* and 7 more"):
        LLM.from_pretrained(other)


def test_one_flipped_bit_in_a_signed_folder_is_refused(tally_folder: Path, tmp_path: Path) -> None:
    """An exponent's bit: the weights still load, and every answer would be garbage."""
    work = StageWork(RunFolder(tmp_path), "export", {}, 1, {})
    work.already_done()
    shutil.copytree(tally_folder, work.folder, dirs_exist_ok=True)
    work.finish(metrics={}, files=[work.folder / file.name for file in tally_folder.iterdir()])
    assert LLM.from_pretrained(work.folder).generate(["A bond"], GREEDY)[0].token_ids
    file = work.folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 64
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.safetensors: checksum differs.*fetch"):
        LLM.from_pretrained(work.folder)
    (work.folder / "manifest.json").unlink()
    assert LLM.from_pretrained(work.folder)


def test_a_prefix_key_that_is_none_is_refused_at_the_call(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="prefix_key: must be a value that can be"):
        llm.generate("A", SamplingParams(max_tokens=1), prefix_key=["a list"])  # type: ignore[arg-type]
