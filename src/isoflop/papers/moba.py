"""Scaling curves and fits of Mixture of Block Attention (arXiv 2502.13189); approximate.

The coefficients of the fits are the published ones; the curves are digitised from the figures. How
the lines were fitted is not stated. Two methods are held against them: ours, least squares through
the ends of the curves, and least squares through their lower envelope.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from isoflop.fit.laws.optima import fit_power_law

ATTENTIONS = ("moba", "full")


@cache
def published_scaling() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the published curves and fits of loss against compute.

    arXiv 2502.13189, section 3.1 and the appendix by position: five models of 545M to 2.1B
    parameters without embeddings, blocks of 512, top_k of 3. Read off figures, so approximate.

    Returns:
        Points of training curves, with the columns `panel`, `attention`, `curve` (its number, the
        smallest model's 0), `compute` (6 N D in PFLOP/s-days) and `loss` (nats per token), by
        compute; the last point of a curve is the end of training. And a line L = a C^b for each
        panel and attention: `panel`, `context_length` (tokens), `start` and `stop` (positions from
        `start` up to but not including `stop`; K is taken as 1,024 tokens), `attention`, `a` (loss
        at 1 PFLOP/s-day, nats per token), `b`. Panels are all positions of an 8K context, the last
        2K of a 32K context, then each 2K of it.
    """
    source = resources.files("isoflop.papers").joinpath("moba_figures.json")
    panels = json.loads(source.read_bytes())["panels"]
    each = [(panel, attention) for panel in panels for attention in ATTENTIONS]
    points = [
        (panel["label"], attention, number, *point)
        for panel, attention in each
        for number, curve in enumerate(panel[attention]["curves"])
        for point in curve
    ]
    where = ["context_length", "start", "stop"]
    lines = [
        (panel["label"], *(panel[name] for name in where), attention, own["a"], own["b"])
        for panel, attention in each
        for own in (panel[attention],)
    ]
    return (
        pd.DataFrame(points, columns=["panel", "attention", "curve", "compute", "loss"]),
        pd.DataFrame(lines, columns=["panel", *where, "attention", "a", "b"]),
    )


def refits() -> pd.DataFrame:
    """Return lines L = a C^b through the published curves by both methods.

    Columns: `panel`, `attention`, `method` (ends or envelope), `points`, `a` (loss at 1
    PFLOP/s-day, nats per token), `b`, `a_difference` and `b_difference` (less the published ones)
    and `relative_difference`, the largest distance of the two lines between the first and the last
    curve's end, as a share of the published loss.
    """
    points, lines = published_scaling()
    curves = dict(iter(points.groupby(["panel", "attention"])))
    rows = []
    for line in lines.to_dict("records"):
        own = curves[line["panel"], line["attention"]]
        ends = own.groupby("curve").last()
        for method, through in (("ends", ends), ("envelope", lower_envelope(own))):
            law = fit_power_law(through["compute"].to_numpy(), through["loss"].to_numpy())
            assert law.k is not None
            assert law.a is not None
            # Lines in log space are farthest apart at an end.
            outer = ends["compute"].to_numpy()[[0, -1]]
            a, b = law.k.value, law.a.value
            apart = a * outer**b / (line["a"] * outer ** line["b"]) - 1
            rows.append(
                {
                    "panel": line["panel"],
                    "attention": line["attention"],
                    "method": method,
                    "points": len(through),
                    "a": a,
                    "b": b,
                    "a_difference": a - line["a"],
                    "b_difference": b - line["b"],
                    "relative_difference": np.abs(apart).max(),
                }
            )
    return pd.DataFrame(rows)


def lower_envelope(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the points, by compute, of any curve that none at less or equal compute beats.

    Only from the end of the smallest model's curve on: before it the envelope is that model's own
    early training, which no smaller model undercuts, and a line through it would be far too steep.
    A convex hull would keep a handful of points, and which ones depends on the axes being
    logarithmic.
    """
    points = curves.sort_values(["compute", "loss"])
    lowest = points["loss"] < points["loss"].cummin().shift(fill_value=np.inf)
    first_end = curves.loc[curves["curve"] == 0, "compute"].max()
    kept: pd.DataFrame = points[lowest & (points["compute"] >= first_end)]
    return kept
