"""Random models of one size, 51M parameters, in every format that the engines load.

    python benchmarks/inference/make_models.py --tokenizer GPT2_FOLDER --out DIR

Makes DIR/llama, a stock Llama (8 layers, 512 wide, vocabulary 50,260, tied head; float32),
DIR/tally, our default shape, and from the first, with `tallyformer export --format`, whatever the
installed packages can write. Random weights cost what trained ones do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tallyformer.model.configuration_tallyformer import TallyFormerConfig
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

SHAPE = {
    "vocab_size": 50260,
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
LLAMA_INNER = 1376
"""As many parameters as our 2,048 with two matrices instead of three."""
FORMATS = (
    ("safetensors", "bfloat16"),
    ("safetensors", "int8"),
    ("safetensors", "int4"),
    ("onnx", "float32"),
    ("onnx", "int8"),
    ("gguf", "bfloat16"),
    ("gguf", "q8_0"),
    ("gguf", "q4_0"),
    ("ctranslate2", "float32"),
    ("ctranslate2", "int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="vocab.json, merges.txt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--floats", action="store_true", help="make the first two alone")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_pretrained(options.tokenizer)
    torch.manual_seed(0)
    models = {
        "llama": lambda: LlamaForCausalLM(
            LlamaConfig(**SHAPE, intermediate_size=LLAMA_INNER, tie_word_embeddings=True)
        ),
        "tally": lambda: TallyFormerForCausalLM(TallyFormerConfig()),
    }
    for name, make in models.items():
        folder = options.out / name
        if not folder.exists():
            make().save_pretrained(folder)
            tokenizer.save(folder, model_max_length=256)
    if options.floats:
        return
    for form, dtype in FORMATS:
        out = options.out / f"llama-{form}-{dtype}"
        if not out.exists():
            command = ["-m", "tallyformer.cli.main", "export", "--format", form, "--dtype", dtype]
            subprocess.run([sys.executable, *command, options.out / "llama", out], check=False)


if __name__ == "__main__":
    main()
