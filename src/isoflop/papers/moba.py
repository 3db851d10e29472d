"""Scaling curves and fits of Mixture of Block Attention (arXiv 2502.13189); approximate.

The coefficients of the fits are the published ones; the curves are digitised from the figures. How
the lines were fitted is not stated: ours are least squares through the ends of the curves.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from isoflop.fit.laws.optima import fit_power_law

ATTENTIONS = {"moba": "MoBA", "full": "full attention"}
"""What lines are of, as the file has it and in words."""


@cache
def published_scaling() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the published curves and fits of loss against compute.

    arXiv 2502.13189, section 3.1 and the appendix by position: five models of 545M to 2.1B
    parameters without embeddings, blocks of 512, top_k of 3. Read off figures, so approximate.

    Returns:
        Points of training curves, with the columns `order` (of the panels), `panel`, `attention`
        (in words), `curve` (its number, the smallest model's 0), `compute` (6 N D in
        PFLOP/s-days) and `loss` (nats per token), by compute; the last point of a curve is the end
        of training. And a line L = a C^b for each panel and attention: `order`, `panel`,
        `context_length` (tokens), `start` and `stop` (positions from `start` up to but not
        including `stop`; K is taken as 1,024 tokens), `attention`, `a` (loss at 1 PFLOP/s-day,
        nats per token), `b`, `refit_a` and `refit_b` (ours), `first` and `last` (compute of the
        ends of the first and of the last curve), and `apart`, the largest distance of the two
        lines between these, as a share of the published loss. Panels are each 2K of a 32K
        context, then all positions of an 8K context, then the last 2K of a 32K context.
    """
    source = resources.files("isoflop.papers").joinpath("moba_figures.json")
    points, lines = [], []
    for order, panel in enumerate(json.loads(source.read_bytes())["panels"]):
        where = {"order": order, "panel": panel["label"]}
        positions = {name: panel[name] for name in ("context_length", "start", "stop")}
        for key, attention in ATTENTIONS.items():
            of, own = {**where, "attention": attention}, panel[key]
            for number, curve in enumerate(own["curves"]):
                points += [{**of, "curve": number, "compute": c, "loss": loss} for c, loss in curve]
            ends = np.array([curve[-1] for curve in own["curves"]])
            fitted = {"a": own["a"], "b": own["b"], **_refitted(own["a"], own["b"], ends)}
            lines.append({**of, **positions, **fitted})
    return pd.DataFrame(points), pd.DataFrame(lines)


def _refitted(a: float, b: float, ends: np.ndarray) -> dict[str, float]:
    """Return our line through the ends of curves, (n, 2), and how far it is from L = a C^b."""
    compute, loss = ends.T
    law = fit_power_law(compute, loss)
    assert law.k is not None
    assert law.a is not None
    # Lines in log space are farthest apart at an end.
    first, last = compute[[0, -1]].tolist()
    ours = {"refit_a": law.k.value, "refit_b": law.a.value, "first": first, "last": last}
    apart = [abs(law.k.value * c**law.a.value / (a * c**b) - 1) for c in (first, last)]
    return {**ours, "apart": max(apart)}
