"""The same weights in other people's implementations give the same logits."""

import torch
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

# Two float32 implementations of one formula: their sums run in different orders.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def test_the_llama_shape_equals_transformers_llama(build, ids):
    ours = build(
        mlp_type="swiglu", proj_bias=False, mlp_out_bias=False, rope_layout="half", norm_eps=1e-6
    )
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        )
    ).eval()
    theirs.model.embed_tokens.weight.data.copy_(ours.model.token_embed.weight)
    theirs.model.norm.weight.data.copy_(ours.model.final_norm.weight)
    for block, layer in zip(ours.model.blocks, theirs.model.layers, strict=True):
        for a, b in (
            (block.attention.query, layer.self_attn.q_proj),
            (block.attention.key, layer.self_attn.k_proj),
            (block.attention.value, layer.self_attn.v_proj),
            (block.attention.proj, layer.self_attn.o_proj),
            (block.mlp.gate, layer.mlp.gate_proj),
            (block.mlp.fc1, layer.mlp.up_proj),
            (block.mlp.fc2, layer.mlp.down_proj),
            (block.attn_norm, layer.input_layernorm),
            (block.mlp_norm, layer.post_attention_layernorm),
        ):
            b.weight.data.copy_(a.weight)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, **CLOSE)


def test_interleaved_attention_equals_gptj(build, ids):
    # GPT-J rotates interleaved pairs. Its block is parallel, x + attn(n(x)) + mlp(n(x)), so
    # with the MLP silenced, one layer of both is x + attn(n(x)).
    ours = build(
        num_hidden_layers=1,
        norm_type="layernorm",
        norm_bias=True,
        norm_eps=1e-5,
        proj_bias=False,
        tie_word_embeddings=False,
    )
    theirs = GPTJForCausalLM(
        GPTJConfig(
            vocab_size=97,
            n_positions=64,
            n_embd=32,
            n_layer=1,
            n_head=4,
            rotary_dim=8,
            n_inner=48,
            layer_norm_epsilon=1e-5,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    block, layer = ours.model.blocks[0], theirs.transformer.h[0]
    for weight in (block.mlp.fc2.weight, block.mlp.fc2.bias):
        weight.data.zero_()
    for weight in (layer.mlp.fc_out.weight, layer.mlp.fc_out.bias, theirs.lm_head.bias):
        weight.data.zero_()
    for a, b in (
        (ours.model.token_embed, theirs.transformer.wte),
        (block.attn_norm, layer.ln_1),
        (block.attention.query, layer.attn.q_proj),
        (block.attention.key, layer.attn.k_proj),
        (block.attention.value, layer.attn.v_proj),
        (block.attention.proj, layer.attn.out_proj),
        (ours.model.final_norm, theirs.transformer.ln_f),
        (ours.lm_head, theirs.lm_head),
    ):
        b.load_state_dict(
            {**b.state_dict(), **{k: v for k, v in a.state_dict().items() if k in b.state_dict()}}
        )
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, **CLOSE)


def test_rmsnorm_and_gelu_are_the_written_formulas(build):
    model = build()
    x = torch.randn(2, 3, 32)
    norm = model.model.final_norm
    norm.weight.data.uniform_(0.5, 2)
    wanted = x / (x.double() ** 2).mean(-1, keepdim=True).add(1e-8).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), wanted.float())
    mlp = model.model.blocks[0].mlp
    inner = mlp.fc1(x)
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(mlp(x), mlp.fc2(gelu), **CLOSE)


def test_rmsnorm_of_bfloat16_is_computed_in_float32(build):
    norm = build().model.final_norm
    x = torch.randn(4, 32).bfloat16()
    assert torch.equal(norm.bfloat16()(x), norm.float()(x.float()).bfloat16())
