"""Text to ids and back: byte-level BPE, chat format, streaming decoder."""
