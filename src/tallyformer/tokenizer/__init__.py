"""Byte-level BPE: GPT-2's or an own one, the chat format, and streaming decoding."""

from tallyformer.tokenizer.stream import StreamDecoder
from tallyformer.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]
