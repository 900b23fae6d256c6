"""Texts that are hard on a tokenizer."""

from __future__ import annotations

from hypothesis import strategies as st

CONTROL = ["<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>"]

pieces = st.one_of(
    st.text(max_size=20),
    st.text(alphabet=" \t\n\r\u00a0\u2003\u200b", max_size=30),
    st.sampled_from(CONTROL),
    st.sampled_from(["<|", "|>", "user", "'s", "'LL", "don't", "<|user|", "ſ", "İ", "e\u0301"]),
    st.integers(1, 400).map("supercalifragilistic".__mul__),
    st.sampled_from("a€👩‍👩‍👧١²").flatmap(lambda c: st.integers(1, 200).map(c.__mul__)),
    st.from_regex(r"[0-9]{1,9}([.,][0-9]{1,4})?%?", fullmatch=True),
)
texts = st.lists(pieces, max_size=8).map("".join)
benign_texts = texts.filter(lambda text: "<|" not in text)
