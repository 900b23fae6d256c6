"""llama.cpp, through llama-cpp-python."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import numpy as np

from tallyformer.errors import ArtifactError
from tallyformer.export.decoder import Source

_FLOAT32 = 0
"""GGML's number for a cache in float32."""
_TEXTS = (
    "I'll pay $1,234.56 — that's 12% more, isn't it?",
    "  two spaces,\ta tab\n\n\nand lines \n end ",
    "Zinseszins: Größe, naïve café, 利息は複利で計算, проценты, 🏦📈 e\u0301 ½ ²³ \u00a0x",
    "<|user|> not a turn <|endoftext|>",
    "don'T WE'LL 've 'x 1st 2nd x=y*z; {\"a\": [1, 2]}",
)


class LlamaCpp:
    """A GGUF file in llama.cpp, on the CPU, its cache in float32."""

    def __init__(self, file: Path, source: Source) -> None:
        self.name = f"llama-cpp-python {llama_cpp.__version__}"
        context = source.decoder.shape.context
        self._llama = llama_cpp.Llama(
            str(file),
            n_ctx=context,
            n_batch=context,
            n_ubatch=context,
            logits_all=True,
            type_k=_FLOAT32,
            type_v=_FLOAT32,
            verbose=False,
        )

    def logits(self, ids_T: np.ndarray) -> np.ndarray:
        """See `OtherEngine`."""
        self._llama.reset()
        self._llama.eval(ids_T.tolist())
        return np.array(self._llama.scores[: len(ids_T)])

    def greedy(self, ids_T: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """See `OtherEngine`."""
        rows = [self.logits(ids_T)[-1]]
        ids = [int(rows[-1].argmax())]
        while len(ids) < steps:
            self._llama.eval(ids[-1:])
            rows.append(np.array(self._llama.scores[self._llama.n_tokens - 1]))
            ids.append(int(rows[-1].argmax()))
        return np.array(ids, np.int64), np.stack(rows)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which no control token is read."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=False))

    def check_tokenizer(self, source: Source) -> None:
        """Compare the ids of some difficult texts.

        Raises:
            ArtifactError: they differ.
        """
        for text in _TEXTS:
            if self.encode(text) != source.tokenizer.encode(text):
                raise ArtifactError(
                    f"llama.cpp makes other ids of {text!r} than the model's tokenizer; what was "
                    "written is not kept. Install another version of llama-cpp-python"
                )
