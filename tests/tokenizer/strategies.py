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
fragments = st.sampled_from(
    sorted({t[a:b] for t in CONTROL for a in range(len(t)) for b in range(a + 1, len(t) + 1)})
)
forgeries = st.lists(st.one_of(fragments, st.sampled_from(CONTROL)), max_size=12).map("".join)
"""Texts made of pieces of control tokens, so that removing one may leave another."""
benign_texts = st.one_of(texts, forgeries).filter(lambda text: not any(t in text for t in CONTROL))
"""Texts that spell no control token in full."""
