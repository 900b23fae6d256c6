"""Conversion to stock Llama."""

import subprocess
import sys
import textwrap

import pytest
import torch

from tallyformer.model.llama import to_llama

LLAMA = {"mlp_type": "swiglu", "proj_bias": False, "mlp_out_bias": False, "rope_layout": "half"}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.mark.parametrize("tied", [True, False])
def test_the_llama_has_the_same_logits(tied, build, ids):
    model = build(**LLAMA, tie_word_embeddings=tied, rope_theta=500.0)
    llama = to_llama(model)
    torch.testing.assert_close(llama(ids).logits, model(ids).logits, **CLOSE)
    assert (llama.lm_head.weight is llama.model.embed_tokens.weight) == tied
    assert llama.config.eos_token_id == model.config.eos_token_id
    assert not llama.training


def test_the_llama_keeps_the_dtype(build, ids):
    model = build(**LLAMA).to(torch.bfloat16)
    llama = to_llama(model)
    assert llama.dtype == torch.bfloat16
    assert torch.equal(llama.lm_head.weight, model.lm_head.weight)


def test_both_search_beams_alike(build, ids):
    model = build(**LLAMA)
    options = {
        "attention_mask": torch.ones_like(ids),
        "num_beams": 4,
        "max_new_tokens": 8,
        "do_sample": False,
    }
    beams = model.generate(ids, **options)
    assert torch.equal(beams, to_llama(model).generate(ids, **options))
    assert not torch.equal(beams, model.generate(ids, **{**options, "num_beams": 1}))


def test_the_copy_does_not_share_memory(build):
    model = build(**LLAMA)
    llama = to_llama(model)
    llama.model.norm.weight.data.fill_(7.0)
    assert model.model.final_norm.weight.max() == 1.0


def test_the_saved_llama_is_stock_and_needs_no_package(build, ids, tmp_path):
    model = build(**LLAMA)
    to_llama(model).save_pretrained(tmp_path / "llama")
    torch.save({"ids": ids, "logits": model(ids).logits.detach()}, tmp_path / "wanted.pt")
    script = """
        import sys
        sys.modules["tallyformer"] = None  # importing it is an error from here on
        import torch
        from transformers import AutoModelForCausalLM, LlamaForCausalLM
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/llama")
        assert type(model) is LlamaForCausalLM
        wanted = torch.load(sys.argv[1] + "/wanted.pt")
        torch.testing.assert_close(
            model(wanted["ids"]).logits, wanted["logits"], atol=1e-5, rtol=1e-5
        )
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "llama").glob("*.py"))


def test_a_model_of_another_shape_is_refused_with_the_fields_in_the_way(build):
    with pytest.raises(ValueError) as error:
        to_llama(build())
    message = str(error.value)
    for field in ("mlp_type is 'gelu', not 'swiglu'", "proj_bias", "mlp_out_bias", "rope_layout"):
        assert field in message
    assert "norm_type" not in message
    assert "tally-51m-llama" in message
