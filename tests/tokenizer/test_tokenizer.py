from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Tokenizer

from tallyformer import Tokenizer as PublicTokenizer
from tallyformer.errors import TokenizerError, UsageError
from tallyformer.tokenizer import Tokenizer
from tallyformer.tokenizer.loading import without_panic
from tallyformer.tokenizer.training import train_backend_in_child

from .conftest import TEXTS
from .strategies import CONTROL, benign_texts, texts

FLAGS = ("lstrip", "rstrip", "normalized", "single_word", "special")


def added(content: str, number: int = 480, **flags: bool) -> dict[str, Any]:
    """A token that is cut out of text before the merges, as tokenizer.json writes it."""
    return {"id": number, "content": content, **dict.fromkeys(FLAGS, False), **flags}


def altered(saved: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Tokenizer:
    """The saved tokenizer after a change of its tokenizer.json."""
    state = json.loads((saved / "tokenizer.json").read_text())
    change(state)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(state))
    return Tokenizer.from_pretrained(folder)


@given(texts)
@example("\n" * 200_000 + "x")
@example("a" * 50_000)
@settings(max_examples=300)
def test_both_paths_give_equal_ids(tokenizer: Tokenizer, text: str) -> None:
    fast = tokenizer.encode_to_numpy(text)
    assert fast.dtype == "uint32"
    assert fast.tolist() == tokenizer.encode(text)


def test_the_fast_path_is_tiktoken_for_trained_and_for_gpt2_files(
    tokenizer: Tokenizer, saved: Path, gpt2_folder: Path
) -> None:
    for each in (
        tokenizer,
        Tokenizer.from_pretrained(saved),
        Tokenizer.from_pretrained(gpt2_folder),
    ):
        assert each._bulk is not None


@pytest.mark.parametrize("points", [range(0x0, 0xD800, 7), range(0xE000, 0x110000, 211)])
def test_both_paths_agree_on_characters_of_every_script(
    tokenizer: Tokenizer, points: range
) -> None:
    text = "".join(f"a{chr(p)}b1 {chr(p)}2{chr(p)}! {chr(p)}" for p in points)
    assert tokenizer.encode_to_numpy(text).tolist() == tokenizer.encode(text)


@given(texts)
@settings(max_examples=300)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(texts)
@settings(max_examples=300)
def test_no_text_becomes_a_control_id(tokenizer: Tokenizer, text: str) -> None:
    assert not tokenizer.control_ids & set(tokenizer.encode(text))
    assert not tokenizer.control_ids & set(tokenizer.encode_to_numpy(text).tolist())


@given(texts)
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    sizes = tokenizer.token_bytes()
    assert sizes.shape == (tokenizer.vocab_size,)
    assert sizes[tokenizer.encode(text)].sum() == len(text.encode())
    assert not sizes[sorted(tokenizer.control_ids)].any()


@given(benign_texts)
def test_ids_of_gpt2_files_equal_those_of_transformers(gpt2_folder: Path, text: str) -> None:
    ours = Tokenizer.from_pretrained(gpt2_folder)
    theirs = GPT2Tokenizer.from_pretrained(gpt2_folder)
    assert ours.encode(text) == theirs.encode(text)


def test_gpt2_files_get_the_missing_control_tokens_at_the_end(gpt2_folder: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(gpt2_folder)
    end = len(json.loads((gpt2_folder / "vocab.json").read_text())) - 1
    assert [tokenizer.token_to_id(t) for t in CONTROL] == [end, end + 1, end + 2, end + 3]
    assert tokenizer.vocab_size == end + 4
    assert tokenizer.control_ids == {end, end + 1, end + 2, end + 3}


def test_a_trained_vocabulary_is_bytes_then_merges_then_control_tokens(
    tokenizer: Tokenizer, saved: Path
) -> None:
    assert tokenizer.vocab_size == 480
    ids = (tokenizer.eot_id, tokenizer.pad_id, tokenizer.user_id, tokenizer.assistant_id)
    assert ids == (476, 477, 478, 479)
    model = json.loads((saved / "tokenizer.json").read_text())["model"]
    by_id = sorted(model["vocab"], key=model["vocab"].__getitem__)
    assert all(len(token) == 1 for token in by_id[:256])
    assert by_id[256:] == [left + right for left, right in model["merges"]]


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert Tokenizer.train(TEXTS, 400).fingerprint == Tokenizer.train(TEXTS, 400).fingerprint


def test_a_vocabulary_learnt_in_a_process_of_its_own_is_the_same(tmp_path: Path) -> None:
    backend = train_backend_in_child(iter(TEXTS), 400, tmp_path)
    assert Tokenizer(backend).fingerprint == Tokenizer.train(TEXTS, 400).fingerprint
    with pytest.raises(TokenizerError, match="supports only"):
        train_backend_in_child(["abab abab"], 400, tmp_path)


def test_training_on_too_little_text_names_the_reachable_size() -> None:
    with pytest.raises(TokenizerError, match=r"supports only 26\d ids.*at most 26\d"):
        Tokenizer.train(["abab abab"], 400)


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer: Tokenizer, saved: Path) -> None:
    loaded = PublicTokenizer.from_pretrained(saved)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab_size == tokenizer.vocab_size
    assert [loaded.encode(t) for t in TEXTS] == [tokenizer.encode(t) for t in TEXTS]


def test_the_fingerprint_tells_tokenizers_apart(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(TEXTS, 479).fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["model"].update(ignore_merges=True),
        lambda state: state["model"].update(byte_fallback=True),
        lambda state: state["model"].update(unk_token="a"),
        lambda state: state["added_tokens"].append(added("bond")),
        lambda state: state["added_tokens"].append(added("bond", single_word=True)),
        lambda state: state["added_tokens"].append(added("bond", normalized=True)),
    ],
)
def test_every_setting_that_decides_ids_changes_the_fingerprint(
    tokenizer: Tokenizer, saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    other = altered(saved, tmp_path / "other", change)
    plain = altered(saved, tmp_path / "plain", lambda s: s["added_tokens"].append(added("bond")))
    assert other.fingerprint != tokenizer.fingerprint
    flags = other._state()["added_tokens"][-1] != plain._state()["added_tokens"][-1]
    assert (other.fingerprint != plain.fingerprint) == flags


def test_transformers_loads_the_folder_without_our_code(tokenizer: Tokenizer, saved: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(saved)
    assert (theirs.eos_token, theirs.bos_token) == ("<|endoftext|>", "<|endoftext|>")
    assert theirs.pad_token == "<|pad|>"
    assert (theirs.model_max_length, theirs.padding_side) == (64, "left")
    assert len(theirs) == tokenizer.vocab_size
    for text in TEXTS:
        assert theirs.encode(text) == tokenizer.encode(text)
        assert theirs.decode(theirs.encode(text)) == text
    for control in CONTROL:
        added = theirs.added_tokens_decoder[tokenizer.token_to_id(control)]
        assert (added.special, added.normalized, added.lstrip, added.rstrip) == (
            True,
            False,
            False,
            False,
        )


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    text = "a\ud800b\udc00"
    assert tokenizer.decode(tokenizer.encode(text)) == "a\ufffdb\ufffd"
    assert tokenizer.encode_to_numpy(text).tolist() == tokenizer.encode(text)


LONG = " ".join(f"{text} {CONTROL[0]} {number} \ud800" for number in range(200) for text in TEXTS)


def test_a_long_text_has_the_ids_of_its_parts(tokenizer: Tokenizer) -> None:
    """A line break before a letter parts words, whatever is around it."""
    parts = [f"{LONG[:5000]}x", "\nA", "\nB", f"\n{LONG[-5000:]}"]
    ids = [token_id for part in parts for token_id in tokenizer.encode(part)]
    assert tokenizer.encode("".join(parts)) == ids


def test_other_threads_run_while_a_long_text_is_encoded(tokenizer: Tokenizer) -> None:
    """A server's event loop is one."""
    text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=2_000_000))
    thread = threading.Thread(target=tokenizer.encode, args=[text])
    turns = 0
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10


def test_control_tokens_are_spelled_only_when_asked_for(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.user_id, *tokenizer.encode(" hi"), tokenizer.eot_id]
    assert tokenizer.decode(ids) == " hi"
    assert tokenizer.decode(ids, skip_control=False) == "<|user|> hi<|endoftext|>"


@given(st.lists(st.integers(0, 479), max_size=40))
@settings(max_examples=300)
def test_streamed_pieces_join_to_the_decoded_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids)


@given(st.lists(st.lists(st.integers(0, 479), max_size=9), max_size=9))
@settings(max_examples=300)
def test_several_ids_at_once_are_the_pieces_of_one_after_another(
    tokenizer: Tokenizer, several: list[list[int]]
) -> None:
    one, many = tokenizer.stream_decoder(), tokenizer.stream_decoder()
    for ids in several:
        assert many.push_all(ids) == "".join(one.push(i) for i in ids)
    assert many.finish() == one.finish()


@given(texts)
def test_streamed_pieces_are_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.stream_decoder()
    done = ""
    for i in tokenizer.encode(text):
        done += stream.push(i)
        assert text.startswith(done)
    assert done == text and stream.finish() == ""


@pytest.mark.parametrize("change", ["pattern", "order", "improper", "added", "promoted"])
def test_another_layout_or_pattern_falls_back_to_equal_ids(
    saved: Path, tmp_path: Path, change: str
) -> None:
    state = json.loads((saved / "tokenizer.json").read_text())
    model = state["model"]
    if change == "pattern":
        digits = {"type": "Digits", "individual_digits": True}
        parts = [digits, state["pre_tokenizer"]]
        state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    elif change == "order":
        a, b = (next(t for t, i in model["vocab"].items() if i == n) for n in (300, 301))
        model["vocab"].update({a: 301, b: 300})
    elif change == "improper":  # "qx" + "z" can never be made: its own text becomes q + "xz"
        keep = [list(pair) for pair in model["merges"][:-3]]
        model["merges"] = [*keep, ["x", "z"], ["q", "x"], ["qx", "z"]]
        last = sorted(model["vocab"], key=model["vocab"].__getitem__)[-3:]
        for old, new, number in zip(last, ["xz", "qx", "qxz"], range(473, 476), strict=True):
            del model["vocab"][old]
            model["vocab"][new] = number
    else:  # a token that is cut out of text before the merges, of one merge or none
        content = "the" if change == "added" else "s"
        number = model["vocab"][content] if change == "promoted" else 480
        state["added_tokens"].append(added(content, number))
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    other = Tokenizer.from_pretrained(tmp_path)
    assert other._bulk is None
    for text in [*TEXTS, "aqxz qxz 2024", "e\u0301"]:
        assert other.encode_to_numpy(text).tolist() == other.encode(text)


def test_a_file_instead_of_a_folder_is_refused(saved: Path) -> None:
    with pytest.raises(TokenizerError, match=r"is a file\. Give the folder"):
        Tokenizer.from_pretrained(saved / "tokenizer.json")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_missing_folder_is_refused_without_asking_the_hub(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such folder"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")


def test_a_damaged_file_is_named(saved: Path, tmp_path: Path) -> None:
    whole = (saved / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TokenizerError, match=f"{tmp_path}.*damaged"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_tokenizer_json_of_any_shape_is_refused_in_one_line(
    shapes_of_damage: Mapping[str, Callable[[Path], None]], saved: Path, tmp_path: Path
) -> None:
    for name, damage in shapes_of_damage.items():
        folder = Path(shutil.copytree(saved, tmp_path / name))
        damage(folder / "tokenizer.json")
        with pytest.raises(TokenizerError, match=r"Fetch or make it again") as caught:
            Tokenizer.from_pretrained(folder)
        assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value), name


def precompiled(state: dict[str, Any]) -> None:
    state["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": ""}


def prefix_longer_than_the_words(state: dict[str, Any]) -> None:
    state["model"]["continuing_subword_prefix"] = "abcdef"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (precompiled, "normalizer Precompiled"),
        (prefix_longer_than_the_words, "continuing_subword_prefix 'abcdef'"),
        (lambda state: sequence({"type": "FixedLength", "length": 0})(state), "length 0"),
    ],
)
def test_what_the_library_panics_on_is_refused_before_it_prints_a_word(
    change: Callable[[dict[str, Any]], object],
    named: str,
    saved: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A panic is not an `Exception`, and is told on standard error whatever its caller does."""
    state = json.loads((saved / "tokenizer.json").read_text())
    change(state)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(TokenizerError, match=named):
        Tokenizer.from_pretrained(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_panic_that_nobody_foresaw_is_an_ordinary_error() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE

    state = json.loads(Backend(BPE()).to_str())
    precompiled(state)
    with pytest.raises(ValueError, match="charsmap"), without_panic():
        Backend.from_str(json.dumps(state))


def test_vocabulary_and_merges_of_different_size_are_refused(
    gpt2_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "gpt2")
    lines = (folder / "merges.txt").read_text().splitlines(keepends=True)
    (folder / "merges.txt").write_text("".join(lines[:-5]))
    with pytest.raises(TokenizerError, match="do not belong together"):
        Tokenizer.from_pretrained(folder)


def test_ids_with_holes_are_refused(saved: Path, tmp_path: Path) -> None:
    state = json.loads((saved / "tokenizer.json").read_text())
    token = max(state["model"]["vocab"], key=state["model"]["vocab"].__getitem__)
    state["model"]["vocab"][token] = 9999
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(TokenizerError, match="480 ids and the highest is 9999; ids must have no"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_that_is_not_byte_level_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel

    Backend(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(TokenizerError, match="not a byte-level BPE"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_that_lacks_bytes_is_refused(tmp_path: Path, saved: Path) -> None:
    state = json.loads((saved / "tokenizer.json").read_text())
    vocab = state["model"]["vocab"]
    unmerged = next(
        t for t in vocab if len(t) == 1 and not any(t in pair for pair in state["model"]["merges"])
    )
    vocab["two characters"] = vocab.pop(unmerged)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(TokenizerError, match="1 of the 256 bytes are not in the vocabulary"):
        Tokenizer.from_pretrained(tmp_path)


SLOW = """
from tallyformer import Tokenizer
from tallyformer.errors import TokenizerError
from tallyformer.tokenizer import loading

loading._DOWNLOAD_SECONDS = 1.0
try:
    Tokenizer.from_pretrained("nobody/slow")
except TokenizerError as error:
    print(error)
"""


def test_a_tokenizer_that_the_hub_delivers_too_slowly_is_given_up(
    hub_here: Any, tmp_path: Path
) -> None:
    """The hub's client waits for each piece, and for all of them without end."""
    hub_here.push("models/nobody/slow", {"tokenizer.json": b"{}"})
    hub_here.delivers.clear()
    done = subprocess.run(
        [sys.executable, "-c", SLOW],
        env={**os.environ, "HF_ENDPOINT": hub_here.url, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "not complete after 1 s" in done.stdout and done.stdout.count("\n") == 1


def test_an_unreachable_hub_name_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TokenizerError, match="no such local folder, and the hub did not"):
        Tokenizer.from_pretrained("nobody/no-such-tokenizer")


def sequence(*parts: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    """A change of the pre-tokenizer to these steps before the usual one."""

    def change(state: dict[str, Any]) -> None:
        steps = [*parts, state["pre_tokenizer"]]
        state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}

    return change


def last_merge_as_words(state: dict[str, Any]) -> None:
    del state["model"]["merges"][-1]
    vocab = state["model"]["vocab"]
    vocab["two words"] = vocab.pop(next(t for t, i in vocab.items() if i == 475))


SPLIT = {"type": "Split", "pattern": {"String": "-"}, "invert": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(normalizer={"type": "NFC"}), "its normalizer NFC changes text"),
        (lambda s: s["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space puts"),
        (lambda s: s.update(pre_tokenizer={"type": "Digits", "individual_digits": True}), "once"),
        (sequence({"type": "WhitespaceSplit"}), "WhitespaceSplit removes or changes text"),
        (sequence({**SPLIT, "behavior": "Removed"}), "pre-tokenizer Split removes"),
        (lambda s: s["model"].update(dropout=0.1), "its BPE has dropout 0.1"),
        (lambda s: s["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix '</w>'"),
        (lambda s: s["added_tokens"].append(added("bond", lstrip=True)), "'bond' swallows the sp"),
        (last_merge_as_words, "'two words' is not spelled in bytes"),
    ],
)
def test_a_tokenizer_that_does_not_give_every_text_back_is_refused(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        altered(saved, tmp_path / "other", change)


def in_vocabulary(state: dict[str, Any]) -> None:
    """The end of text as an ordinary token that one word of text can be."""
    state["model"]["vocab"]["<|endoftext|>"] = 476
    state["model"]["ignore_merges"] = True
    state["pre_tokenizer"]["use_regex"] = False


def first_merge_as_control(state: dict[str, Any]) -> None:
    content = "".join(state["model"]["merges"][0])
    number = state["model"]["vocab"][content]
    state["added_tokens"].append(added(content, number, special=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_vocabulary, r"its BPE makes the control token '<\|endoftext\|>' from text"),
        (first_merge_as_control, "its BPE makes the control token '.*' from text"),
        (
            lambda s: s["added_tokens"].append(added("~", 93, special=True)),
            "control token '~' from",
        ),
        (lambda s: s["added_tokens"].append(added("§", special=True)), "token '§' apart from text"),
        (lambda s: s["added_tokens"].append(added("a b", special=True)), "'a b' apart from text"),
        (lambda s: s["added_tokens"].append(added(">>END<<", special=True)), "'>>END<<' apart"),
        (lambda s: s["added_tokens"].append(added("<|user|>x")), r"'<\|user\|>x' apart from text"),
    ],
)
def test_a_tokenizer_whose_control_ids_text_could_get_is_refused(
    saved: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        altered(saved, tmp_path / "other", change)


@given(texts)
def test_harmless_settings_of_others_keep_every_promise(other: Tokenizer, text: str) -> None:
    ids = other.encode(text)
    assert other.decode(ids) == text
    assert not other.control_ids & set(ids)
    assert other.encode_to_numpy(text).tolist() == ids


@pytest.fixture(scope="module")
def other(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Digits one by one, words as they are in the vocabulary, own added tokens."""

    def change(state: dict[str, Any]) -> None:
        sequence({"type": "Digits", "individual_digits": True})(state)
        sequence({**SPLIT, "behavior": "Isolated"})(state)
        state["normalizer"] = {"type": "Sequence", "normalizers": []}
        state["model"]["ignore_merges"] = True
        state["added_tokens"] += [
            added("  "),
            added("user", 481),
            added("<|im|>", 482, special=True),
        ]

    return altered(saved, tmp_path_factory.mktemp("others") / "folder", change)


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_what_is_no_text_is_refused(tokenizer: Tokenizer, text: Any) -> None:
    for use in (tokenizer.encode, tokenizer.encode_to_numpy, lambda t: Tokenizer.train([t], 300)):
        with pytest.raises(UsageError, match=f"type {type(text).__name__}. Give str; decode"):
            use(text)


def test_a_numpy_text_is_a_text(tokenizer: Tokenizer) -> None:
    text = np.str_("A bond pays a coupon\ud800")
    assert tokenizer.encode(text) == tokenizer.encode(str(text))
    assert tokenizer.encode_to_numpy(text).tolist() == tokenizer.encode(str(text))
