"""Import of files of the earlier system of this name, against a re-implementation of its design.

The model below is written from the description in the specification, with its tensor names, and
shares no code with the package.

Shapes: B batch, T tokens, H heads, E head size.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from tallyformer.errors import ArtifactError, CheckpointError, TokenizerError
from tallyformer.export.reference import import_reference, import_reference_adapter
from tallyformer.model.modeling_tallyformer import TallyFormerForCausalLM
from tallyformer.tokenizer import Tokenizer

SETTINGS: dict[str, Any] = {
    "context_length": 16,
    "n_embed": 32,
    "n_head": 4,
    "n_block": 2,
    "vocab_size": 61,
    "pad_token_id": 5,
    "use_zloss": True,
    "zloss_coeff": 1e-4,
    "dropout": 0.1,
    "norm_type": "rmsnorm",
    "rms_norm": True,
    "model_type": "gpt2",
    "tie_word_embeddings": True,
}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


class Norm(nn.Module):
    def __init__(self, width: int, kind: str):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.kind = kind
        self.bias = nn.Parameter(torch.rand(width)) if kind == "layernorm+bias" else None

    def forward(self, x):
        if self.kind.startswith("layernorm"):
            return nn.functional.layer_norm(x, x.shape[-1:], self.scale, self.bias, eps=1e-5)
        return self.scale * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-8)


class Attention(nn.Module):
    def __init__(self, settings):
        super().__init__()
        width, self.heads = settings["n_embed"], settings["n_head"]
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        length = settings["context_length"]
        self.register_buffer("causal_mask", torch.tril(torch.ones(length, length)).bool())

    def turn(self, x_BHTE):
        half = x_BHTE.shape[-1] // 2
        speed = 1.0 / 10_000 ** (torch.arange(half) / half)
        angle = torch.arange(x_BHTE.shape[2])[:, None] * speed
        a, b = x_BHTE[..., 0::2], x_BHTE[..., 1::2]
        return torch.cat(
            [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1
        )

    def forward(self, x):
        B, T, _ = x.shape

        def split(y):
            return y.reshape(B, T, self.heads, -1).permute(0, 2, 1, 3)

        q, k, v = (
            self.turn(split(self.query(x))),
            self.turn(split(self.key(x))),
            split(self.value(x)),
        )
        score = torch.einsum("bhqe,bhke->bhqk", q, k) / q.shape[-1] ** 0.5
        score = score.masked_fill(~self.causal_mask[:T, :T], float("-inf"))
        mixed = torch.einsum("bhqk,bhke->bqhe", score.softmax(-1), v)
        return self.proj(mixed.reshape(B, T, -1))


class Mlp(nn.Module):
    def __init__(self, settings):
        super().__init__()
        width = settings["n_embed"]
        self.hidden = nn.Linear(width, 4 * width, bias=False)
        self.proj = nn.Linear(4 * width, width)

    def forward(self, x):
        inner = self.hidden(x)
        return self.proj(inner * (1 + torch.erf(inner / 2**0.5)) / 2)


class Block(nn.Module):
    def __init__(self, settings, kind: str, post: bool):
        super().__init__()
        self.ln1, self.ln2 = Norm(settings["n_embed"], kind), Norm(settings["n_embed"], kind)
        self.attn, self.mlp, self.post = Attention(settings), Mlp(settings), post

    def forward(self, x):
        if self.post:
            x = self.ln1(x + self.attn(x))
            return self.ln2(x + self.mlp(x))
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Reference(nn.Module):
    def __init__(self, settings=SETTINGS, kind: str = "rmsnorm", post: bool = False):
        super().__init__()
        self.token_embed = nn.Embedding(settings["vocab_size"], settings["n_embed"])
        self.attn_blocks = nn.ModuleList(
            Block(settings, kind, post) for _ in range(settings["n_block"])
        )
        self.layer_norm = Norm(settings["n_embed"], kind)
        self.lm_head = nn.Linear(settings["n_embed"], settings["vocab_size"], bias=False)
        if settings["tie_word_embeddings"]:
            self.lm_head.weight = self.token_embed.weight

    def forward(self, ids):
        x = self.token_embed(ids)
        for block in self.attn_blocks:
            x = block(x)
        return self.lm_head(self.layer_norm(x))


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 61, (2, 13), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def reference() -> Reference:
    torch.manual_seed(0)
    return Reference()


def save(path: Path, model: nn.Module, settings=SETTINGS, prefix="", key="config_dict", **more):
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, key: settings, **more}, path)
    return path


def load(folder: Path) -> TallyFormerForCausalLM:
    return TallyFormerForCausalLM.from_pretrained(folder).eval()


# --- checkpoints that load ---------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod.module."])
@pytest.mark.parametrize("key", ["config_dict", "config"])
def test_an_imported_model_has_the_same_logits(prefix, key, reference, ids, tmp_path):
    file = save(tmp_path / "best.pt", reference, prefix=prefix, key=key)
    out = import_reference(file, tmp_path / "out")
    model = load(out)
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)
    assert model.lm_head.weight is model.model.token_embed.weight
    assert (out / "modeling_tallyformer.py").is_file()
    assert (model.config.max_position_embeddings, model.config.dropout) == (16, 0.1)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (5, None)


def test_bfloat16_stays_bfloat16_and_gives_the_same_logits(reference, ids, tmp_path):
    file = save(tmp_path / "best.pt", reference.bfloat16())
    model = load(import_reference(file, tmp_path / "out"))
    assert model.dtype == torch.bfloat16
    torch.testing.assert_close(model.float()(ids).logits, reference.float()(ids), **CLOSE)


@pytest.mark.parametrize(
    ("fields", "kind", "post"),
    [
        ({"norm_type": "layernorm", "rms_norm": False}, "layernorm", False),
        ({"norm_type": "LayerNorm"}, "layernorm+bias", False),
        ({"norm_type": "pre", "rms_norm": False}, "layernorm", False),
        ({"norm_type": "rms_norm", "model_type": "post-norm"}, "rmsnorm", True),
        ({"norm_type": "post_norm", "rms_norm": True}, "rmsnorm", True),
        ({"norm_type": None, "model_type": None}, "rmsnorm", False),
        ({"tie_word_embeddings": False}, "rmsnorm", False),
    ],
)
def test_the_variants_of_the_reference_load_too(fields, kind, post, ids, tmp_path):
    torch.manual_seed(0)
    settings = {**SETTINGS, **fields}
    reference = Reference(settings, kind, post)
    file = save(tmp_path / "best.pt", reference, settings)
    model = load(import_reference(file, tmp_path / "out"))
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)
    assert model.config.norm_placement == ("post" if post else "pre")
    assert model.config.tie_word_embeddings == settings["tie_word_embeddings"]


def test_a_head_that_differs_from_the_embedding_is_kept_whatever_the_flag_says(ids, tmp_path):
    torch.manual_seed(0)
    reference = Reference({**SETTINGS, "tie_word_embeddings": False})
    file = save(tmp_path / "merged.pt", reference, SETTINGS)
    model = load(import_reference(file, tmp_path / "out"))
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)


def test_a_missing_tied_head_is_the_embedding(reference, ids, tmp_path):
    state = {k: v for k, v in reference.state_dict().items() if k != "lm_head.weight"}
    torch.save({"state_dict": state, "config_dict": SETTINGS}, tmp_path / "best.pt")
    model = load(import_reference(tmp_path / "best.pt", tmp_path / "out"))
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)


def test_a_tokenizer_is_saved_with_the_model_in_one_step(reference, ids, tmp_path):
    tokenizer = Tokenizer.train(["A bond pays a coupon every year."], 270)
    settings = {**SETTINGS, "vocab_size": tokenizer.vocab_size}
    file = save(tmp_path / "best.pt", Reference(settings), settings)
    out = import_reference(file, tmp_path / "out", tokenizer)
    assert Tokenizer.from_pretrained(out).fingerprint == tokenizer.fingerprint
    assert json.loads((out / "tokenizer_config.json").read_text())["model_max_length"] == 16
    other = save(tmp_path / "other.pt", reference)
    with pytest.raises(TokenizerError, match=r"other.pt: the model has 61 ids, the tokenizer 270"):
        import_reference(other, tmp_path / "none", tokenizer)
    assert not (tmp_path / "none").exists()


NUMBERS = {
    "loss": np.float64(3.25),
    "speed": np.float32(1.5),
    "half": np.float16(0.5),
    "step": np.int64(7),
    "byte": np.uint8(255),
    "best": np.bool_(True),
    "history": [np.float64(1.0), 2.0, "text"],
}


def test_plain_numpy_numbers_in_extra_are_read(reference, ids, tmp_path):
    file = save(tmp_path / "best.pt", reference, extra=NUMBERS)
    model = load(import_reference(file, tmp_path / "out"))
    torch.testing.assert_close(model(ids).logits, reference(ids), **CLOSE)


def test_numbers_written_by_numpy_1_are_read(reference, tmp_path):
    file = save(tmp_path / "best.pt", reference, extra=NUMBERS)
    old = tmp_path / "old.pt"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            if entry.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(entry, content)
    import_reference(old, tmp_path / "out")


# --- files that are refused --------------------------------------------------------------------


class Bait:
    """Makes a folder when it is unpickled carelessly."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_file_is_refused_and_not_run(reference, tmp_path):
    trap = tmp_path / "trap"
    file = save(tmp_path / "evil.pt", reference, extra={"note": Bait(trap)})
    with pytest.raises(CheckpointError) as error:
        import_reference(file, tmp_path / "out")
    assert "refused, and nothing of it was run: it asks for posix.mkdir" in str(error.value)
    assert str(file) in str(error.value)
    assert not trap.exists()
    assert not (tmp_path / "out").exists()
    torch.load(file, weights_only=False)
    assert trap.exists(), "the bait must work, or this test shows nothing"


@pytest.mark.parametrize(
    ("extra", "asks_for"),
    [
        (np.zeros(3), "_reconstruct"),
        (np.dtype("O"), "numpy.dtype('O8')"),
        (np.str_("text"), "numpy.dtype('U4')"),
        (np.datetime64("2020-01-01"), "numpy.dtype('M8')"),
        (Path("x"), "pathlib"),
    ],
)
def test_everything_but_plain_numbers_is_refused(extra, asks_for, reference, tmp_path):
    file = save(tmp_path / "best.pt", reference, extra=extra)
    with pytest.raises(CheckpointError, match="refused, and nothing of it was run") as error:
        import_reference(file, tmp_path / "out")
    assert asks_for in str(error.value)


def test_the_allow_list_is_gone_afterwards(reference, tmp_path):
    before = set(torch.serialization.get_safe_globals())
    import_reference(save(tmp_path / "best.pt", reference), tmp_path / "out")
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_damaged_file_is_named(reference, tmp_path):
    file = save(tmp_path / "best.pt", reference)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"best.pt: damaged or not a torch checkpoint"):
        import_reference(file, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"none.pt: no such file"):
        import_reference(tmp_path / "none.pt", tmp_path / "out")


def test_an_existing_folder_is_never_overwritten(reference, tmp_path):
    file = save(tmp_path / "best.pt", reference)
    (tmp_path / "out").mkdir()
    with pytest.raises(
        ArtifactError, match=r"out: exists already. Choose another folder, or delete it"
    ):
        import_reference(file, tmp_path / "out")


def change(state: dict, name: str, to: Any) -> None:
    if to is None:
        del state[name]
    else:
        state[name] = to


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("attn_blocks.1.attn.key.weight", None, "missing model.blocks.1.attention.key.weight"),
        ("layer_norm.scale", None, "missing model.final_norm.weight"),
        ("token_embed.weight", None, "token_embed.weight or attn_blocks.0.mlp.hidden.weight is"),
        ("attn_blocks.0.ln1.scale", torch.ones(8), r"attn_norm.weight \(8,\) instead of \(32,\)"),
        ("attn_blocks.0.attn.query.bias", torch.ones(32), "unexpected model.blocks.0.attention.q"),
        ("attn_blocks.0.moe.weight", torch.ones(1), "not a tensor .*: attn_blocks.0.moe.weight"),
        ("attn_blocks.0.ln1.weight", torch.ones(1), "not a tensor .*: attn_blocks.0.ln1.weight"),
        ("attn_blocks.2.ln1.scale", torch.ones(32), r"'n_block'\] is 2, but the tensors say 3"),
        ("_orig_mod.layer_norm.scale", torch.ones(32), "layer_norm.scale is there twice"),
        ("layer_norm.scale", torch.ones(32, dtype=torch.int8), "holds torch.int8, not floating"),
        ("layer_norm.scale", 3.0, "not a tensor .*: layer_norm.scale"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(name, to, message, reference, tmp_path):
    state = dict(reference.state_dict())
    change(state, name, to)
    torch.save({"state_dict": state, "config_dict": SETTINGS}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=message):
        import_reference(tmp_path / "best.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 10**12}, r"'vocab_size'\] is 1000000000000, but the tensors say 61"),
        ({"n_embed": 64}, r"'n_embed'\] is 64, but the tensors say 32"),
        ({"n_head": 5}, "its configuration makes no model: .*the heads do not divide"),
        ({"n_head": "4"}, r"'n_head'\] is '4', not a whole number"),
        ({"context_length": None}, r"'context_length'\] is None, not a whole number"),
        ({"norm_type": "batch"}, r"'norm_type'\] 'batch' is unknown"),
        ({"model_type": "bert"}, r"'model_type'\] 'bert' is unknown"),
        ({"dropout": 2.0}, "makes no model: TallyFormerConfig.dropout"),
        ({"pad_token_id": 61}, r"'pad_token_id'\] is 61, but the ids end at 60"),
        ({"pad_token_id": -1}, r"'pad_token_id'\] is -1, but the ids end at 60"),
        ({"pad_token_id": "5"}, r"'pad_token_id'\] is '5', not a whole number"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(fields, message, reference, tmp_path):
    file = save(tmp_path / "best.pt", reference, {**SETTINGS, **fields})
    with pytest.raises(CheckpointError, match=message):
        import_reference(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({"model": {}}, r"has no dictionary config_dict or config; it holds \['model'\]"),
        ({"config": {}, "state_dict": 1}, "has no dictionary state_dict"),
    ],
)
def test_a_file_of_another_kind_is_named(content, message, tmp_path):
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=message):
        import_reference(tmp_path / "best.pt", tmp_path / "out")


# --- adapters ----------------------------------------------------------------------------------

peft_warns = pytest.mark.filterwarnings(
    # The reference tied its head and trained it apart; PEFT says so each time.
    "ignore:Model has `tie_word_embeddings=True`:UserWarning",
    # PEFT still calls it by the name that transformers gave up.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


def tuned(reference: Reference, **options: Any) -> PeftModel:
    config = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["query", "key", "value", "proj"],
        "modules_to_save": ["lm_head"],
        **options,
    }
    model = get_peft_model(reference, LoraConfig(**config))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


@peft_warns
@pytest.mark.parametrize("safe", [True, False])
def test_an_imported_adapter_has_the_same_logits(safe, reference, ids, tmp_path):
    base = load(import_reference(save(tmp_path / "best.pt", reference), tmp_path / "base"))
    untuned = base(ids).logits.detach()
    model = tuned(reference)
    wanted = model(ids)
    model.save_pretrained(tmp_path / "adapter")
    if not safe:  # what older versions of PEFT wrote
        file = tmp_path / "adapter" / "adapter_model.safetensors"
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    out = import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
    got = PeftModel.from_pretrained(base, out).eval()(ids).logits
    torch.testing.assert_close(got, wanted, **CLOSE)
    assert not torch.allclose(got, untuned, atol=1e-2)


@peft_warns
def test_an_adapter_of_a_compiled_model_imports(reference, ids, tmp_path):
    base = load(import_reference(save(tmp_path / "best.pt", reference), tmp_path / "base"))
    model = tuned(reference, modules_to_save=None)
    wanted = model(ids)
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(
        {k.replace("model.attn", "model._orig_mod.attn"): v for k, v in load_file(file).items()},
        file,
    )
    out = import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
    torch.testing.assert_close(PeftModel.from_pretrained(base, out).eval()(ids).logits, wanted)


@peft_warns
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, r"only plain LoRA .* with \['use_dora'\]"),
        ({"rank_pattern": {"query": 2}}, r"only plain LoRA .* with \['rank_pattern'\]"),
        ({"bias": "all"}, "only plain LoRA .* with bias 'all'"),
        ({"target_modules": ["query", "token_embed"]}, r"\['token_embed'\] are not layers"),
        ({"target_modules": r".*\.query"}, "are not layers of the earlier system's model"),
        ({"modules_to_save": ["layer_norm"]}, "only lm_head can be imported"),
    ],
)
def test_an_adapter_that_has_no_counterpart_is_refused(options, message, reference, tmp_path):
    base = load(import_reference(save(tmp_path / "best.pt", reference), tmp_path / "base"))
    tuned(reference, **options).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@peft_warns
def test_an_adapter_of_another_size_or_without_files_is_refused(reference, tmp_path):
    base = load(import_reference(save(tmp_path / "best.pt", reference), tmp_path / "base"))
    with pytest.raises(CheckpointError, match=r"adapter_config.json: missing"):
        import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
    other = Reference({**SETTINGS, "n_embed": 64})
    tuned(other).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"lora_A.weight \(4, 64\) instead of \(4, 32\)"):
        import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: damaged"):
        import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model.bin: no such file"):
        import_reference_adapter(tmp_path / "adapter", base, tmp_path / "out")
