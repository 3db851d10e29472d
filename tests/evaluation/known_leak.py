"""A routed model whose top-k loss is lower than its causal one by an amount worked out by hand.

Text is A, then B or C, again and again, read in windows of two tokens with one place in the routed
block. The scores are C < A < B, so that top-k processes A exactly if C follows. A skipped A says
nothing of what follows (ln 2 nats), a processed one says C (0 nats); after B or C always comes A
(0 nats). The predictor's logits are zero: it selects nothing.
"""

from __future__ import annotations

import numpy as np
import torch

from isoflop.config import ModelConfig, TopK
from isoflop.data import TokenSplit
from isoflop.model import Transformer, build

A, B, C = range(3)
LENGTH = 2


def leaking_model() -> Transformer:
    config = ModelConfig(
        vocabulary=3,
        width=4,
        blocks=1,
        heads=1,
        head_width=2,
        hidden=1,
        depth=TopK(capacity=0.5, blocks=(0,)),
    )
    model = build(config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.zero_()
        model.embedding.weight[:3, :3] = torch.eye(3)
        (routed,) = model.routed
        routed.router.weight[0] = torch.tensor([1.0, 2.0, 0.0, 0.0])
        # A processed A gets a large fourth entry; the feed-forward reads A alone.
        feed_forward = routed.block.feed_forward
        feed_forward.gate_up.weight[:, 0] = torch.tensor([5.0, 1.0])
        feed_forward.down.weight[3, 0] = 1.0
        model.head.weight[A] = 20 * torch.tensor([-1.0, 1, 1, 0])
        model.head.weight[B] = 20 * torch.tensor([1.0, -1, -1, -1])
        model.head.weight[C] = 20 * torch.tensor([1.0, -1, -1, 1])
    return model


def text(*followers: str) -> TokenSplit:
    """One document for each argument: which of B and C follow A in it."""
    ids = [[token for mark in one for token in (A, B if mark == "B" else C)] for one in followers]
    # The text ends in an A, the last target, which counts to the last document.
    ids[-1].append(A)
    offsets = np.cumsum([0, *map(len, ids)])
    tokens = np.array([token for one in ids for token in one], dtype=np.uint8)
    return TokenSplit(tokens, offsets, np.diff(offsets), np.ones(3, dtype=np.int64))
