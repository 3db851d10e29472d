"""Closed forms against the built module: its parameters, and the products torch counts in it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from given import small_model
from isoflop.config import Depth, EveryToken, FeedForward, Gelu, RandomK, SwiGlu, TopK
from isoflop.costs import forward_flops
from isoflop.model import build

DEPTHS = [
    EveryToken(),
    TopK(capacity=0.3, every=2),
    TopK(capacity=0.125, blocks=(0, 1, 3)),
    RandomK(capacity=0.5, every=2),
]


@pytest.mark.parametrize("depth", DEPTHS, ids=lambda depth: str(depth.kind))
@pytest.mark.parametrize("feed_forward", [SwiGlu(), Gelu()], ids=lambda choice: str(choice.kind))
def test_full_flops_are_what_torch_counts(depth: Depth, feed_forward: FeedForward) -> None:
    batch, length = 3, 31
    shape = {"vocabulary": 53, "width": 22, "blocks": 4, "heads": 6, "kv_heads": 3, "hidden": 37}
    config = small_model(**shape, head_width=14, depth=depth, feed_forward=feed_forward)
    model = build(config, seed=0).train()
    tokens = torch.randint(53, (batch, length), generator=torch.Generator().manual_seed(0))
    # The math path, since torch has no formula for the fused kernel on CPU and counts it as free.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, decision=None)
    expected = forward_flops(config, length, "full")
    # The router's product is a float32 sum of products, which the counter does not see.
    assert counter.get_total_flops() == batch * (expected.total - expected.router)
