"""What the logits of a position owe to the tokens after it: nothing, where decisions are causal.

Axes: W windows, T time, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from isoflop.config import Cap, Decision, FutureChange
from isoflop.evaluation.loss import control_noise, evaluating
from isoflop.model import Transformer

VISIBLE = 1e-3
"""Difference of a logit beyond what rounding in float32 explains."""
PAIRS = 4
"""Windows at a time."""


def future_change(
    model: Transformer,
    windows: NDArray[np.int64],
    decision: Decision,
    *,
    cap: Cap | None = None,
    seed: int = 0,
) -> FutureChange:
    """Return how many logits change when every token after a random position does.

    Computed in float32. How a matrix product rounds depends on its shape and on the row, and how
    many tokens a routed block processes at once on the whole batch. So each window is run in one
    batch with its changed copy, then again with the two exchanged: window and copy are compared at
    the same row of batches that hold the same sequences.

    Args:
        model: evaluated as it is.
        windows: ids, (W, T), W at least 1 and T at least 2.
        decision: who selects.
        cap: on what a causal decision selects; None for none.
        seed: keys the positions, the tokens and what the random control draws.
    """
    count, length = windows.shape
    generator = np.random.default_rng(seed)
    vocabulary = model.config.vocabulary
    cut = generator.integers(0, length - 1, count)
    other = (windows + generator.integers(1, vocabulary, windows.shape)) % vocabulary
    upto = np.arange(length) <= cut[:, None]
    changed = np.where(upto, windows, other)
    differing = visibly = 0
    with evaluating(model) as device, torch.autocast(device.type, enabled=False):
        for start in range(0, count, PAIRS):
            part = slice(start, start + PAIRS)
            two = torch.from_numpy(np.concatenate([windows[part], changed[part]])).to(device)
            rows = len(two) // 2
            noise = control_noise(model, decision, 2 * rows, length, seed)
            exchanged = torch.cat([two[rows:], two[:rows]])
            before, after = (
                model(tokens, decision=decision, noise=noise, cap=cap).logits[:rows].float()
                for tokens in (two, exchanged)
            )
            most = (before - after).abs().amax(-1)[torch.from_numpy(upto[part]).to(device)]
            differing += int((most > 0).sum())
            visibly += int((most > VISIBLE).sum())
    logits = int(upto.sum())
    return FutureChange(
        windows=count,
        logits=logits,
        changed=differing / logits,
        changed_visibly=visibly / logits,
    )
