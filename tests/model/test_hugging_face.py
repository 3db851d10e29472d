"""Weight for weight the same function as Hugging Face's Llama and Qwen3."""

from __future__ import annotations

import pytest
import torch

from isoflop.config import ModelConfig
from isoflop.model import Transformer, build


def peer_of(model: Transformer) -> torch.nn.Module:
    """Return Hugging Face's model of the same shape with the weights of `model`."""
    transformers = pytest.importorskip("transformers", reason="needs the dev extra")
    config = model.config
    kind = "Qwen3" if config.query_key_norm else "Llama"
    described = getattr(transformers, f"{kind}Config")(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.hidden,
        num_hidden_layers=config.blocks,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        head_dim=config.head_width,
        rms_norm_eps=config.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
        tie_word_embeddings=config.tied_embeddings,
        attention_bias=False,
        attn_implementation="eager",
    )
    state = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
    }
    state["lm_head.weight"] = model.head.weight
    queries, keys = config.heads * config.head_width, config.key_value_heads * config.head_width
    for index, block in enumerate(model.blocks):
        q, k, v = block.attention.query_key_value.weight.split((queries, keys, keys))
        gate, up = block.feed_forward.gate_up.weight.chunk(2)
        parts = {
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.output.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.feed_forward.down.weight,
            "input_layernorm": block.attention_norm.weight,
            "post_attention_layernorm": block.feed_forward_norm.weight,
        }
        if config.query_key_norm:
            parts["self_attn.q_norm"] = block.attention.query_norm.weight
            parts["self_attn.k_norm"] = block.attention.key_norm.weight
        state.update({f"model.layers.{index}.{name}.weight": w for name, w in parts.items()})
    peer = getattr(transformers, f"{kind}ForCausalLM")(described)
    peer.load_state_dict(state)
    return peer.eval()


@pytest.mark.parametrize("query_key_norm", [False, True], ids=["Llama", "Qwen3"])
@pytest.mark.parametrize("kv_heads", [6, 3, 1])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_logits_are_hugging_faces(query_key_norm: bool, kv_heads: int, tied: bool) -> None:
    config = ModelConfig(
        vocabulary=53,
        width=24,
        blocks=3,
        heads=6,
        kv_heads=kv_heads,
        head_width=14,
        hidden=37,
        query_key_norm=query_key_norm,
        tied_embeddings=tied,
        rope_base=5_000.0,
        norm_epsilon=1e-3,
    )
    model = build(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    tokens = torch.randint(53, (2, 41), generator=generator)
    with torch.no_grad():
        expected = peer_of(model)(tokens).logits
        found = model(tokens).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
