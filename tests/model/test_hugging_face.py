"""Weight for weight the same function as Hugging Face's Llama and Qwen3."""

from __future__ import annotations

import pytest
import torch

from given import small_model
from isoflop.model import Transformer, build
from isoflop.model.peers import described, to_peer


def peer_of(model: Transformer) -> torch.nn.Module:
    """Return Hugging Face's model of the same shape with the weights of `model`."""
    transformers = pytest.importorskip("transformers", reason="needs the dev extra")
    values = described(model.config, 64)
    kind = transformers.CONFIG_MAPPING[values["model_type"]]
    peer = transformers.AutoModelForCausalLM.from_config(kind.from_dict(values))
    peer.load_state_dict(to_peer(model.state_dict(), model.config), strict=False)
    peer.tie_weights()
    return peer.eval()


@pytest.mark.parametrize("query_key_norm", [False, True], ids=["Llama", "Qwen3"])
@pytest.mark.parametrize("kv_heads", [6, 3, 1])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_logits_are_hugging_faces(query_key_norm: bool, kv_heads: int, tied: bool) -> None:
    shape = {"vocabulary": 53, "width": 24, "blocks": 3, "heads": 6, "head_width": 14}
    config = small_model(
        **shape,
        hidden=37,
        kv_heads=kv_heads,
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
