"""Scaling curves and fits of Mixture of Block Attention (arXiv 2502.13189); approximate.

The coefficients of the fits are the published ones; the curves are digitised from the figures. How
the lines were fitted is not stated. Two methods are held against them: ours, least squares through
the ends of the curves, and least squares through their lower envelope.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.laws.optima import fit_power_law

PublishedAttention = Literal["moba", "full"]
RefitMethod = Literal["ends", "envelope"]

ATTENTIONS: tuple[PublishedAttention, ...] = get_args(PublishedAttention)


class PublishedScaling(Frozen):
    """Training curves of five sizes under one attention, and the line L = a C^b through them."""

    a: float
    """Loss at 1 PFLOP/s-day, nats per token."""
    b: float
    curves: tuple[tuple[tuple[float, float], ...], ...]
    """For each size, the smallest first: points of compute, 6 N D in PFLOP/s-days, and loss in
    nats per token, by compute. The last point is the end of training."""

    @property
    def ends(self) -> tuple[tuple[float, float], ...]:
        """Compute and loss at the end of each curve."""
        return tuple(curve[-1] for curve in self.curves)


class ScalingPanel(Frozen):
    """One panel of the figures: loss against compute in a range of positions."""

    label: str
    context_length: int
    """Tokens."""
    start: int
    stop: int
    """Positions from `start` up to but not including `stop`; K is taken as 1,024 tokens."""
    moba: PublishedScaling
    full: PublishedScaling

    def under(self, attention: PublishedAttention) -> PublishedScaling:
        """Return curves and line under one attention."""
        return self.moba if attention == "moba" else self.full


class MobaScaling(Frozen):
    """What the scaling figures of Mixture of Block Attention show."""

    panels: tuple[ScalingPanel, ...]
    """All positions of an 8K context, the last 2K of a 32K context, then each 2K of it."""


class Refit(Frozen):
    """A line L = a C^b through published curves, and how far from it the published one lies."""

    panel: str
    attention: PublishedAttention
    method: RefitMethod
    points: int
    a: float
    """Loss at 1 PFLOP/s-day, nats per token."""
    b: float
    a_difference: float
    """Of a, less the published one."""
    b_difference: float
    relative_difference: float
    """Largest distance of the two lines between the first and the last curve's end, as a share of
    the published loss."""


@cache
def moba_scaling() -> MobaScaling:
    """Return the published curves and fits of loss against compute.

    arXiv 2502.13189, section 3.1 and the appendix by position: five models of 545M to 2.1B
    parameters without embeddings, blocks of 512, top_k of 3. Read off figures, so approximate.
    """
    source = resources.files("isoflop.papers").joinpath("moba_figures.json")
    return MobaScaling.model_validate_json(source.read_bytes())


def refit_published_scaling() -> tuple[Refit, ...]:
    """Return refits of every panel and attention by both methods (arXiv 2502.13189)."""
    return tuple(
        _refit(panel, attention, method)
        for panel in moba_scaling().panels
        for attention in ATTENTIONS
        for method in get_args(RefitMethod)
    )


def refit_table() -> pd.DataFrame:
    """Return `refit_published_scaling` as a table, a row per panel, attention and method."""
    return pd.DataFrame([one.model_dump() for one in refit_published_scaling()])


def lower_envelope(published: PublishedScaling) -> npt.NDArray[np.float64]:
    """Return the points, (n, 2) by compute, of any curve that none at less or equal compute beats.

    Only from the end of the smallest model's curve on: before it the envelope is that model's own
    early training, which no smaller model undercuts, and a line through it would be far too steep.
    A convex hull would keep a handful of points, and which ones depends on the axes being
    logarithmic.
    """
    points = np.array([point for curve in published.curves for point in curve])
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    before = np.minimum.accumulate(points[:, 1])[:-1]
    lowest = np.concatenate([[True], points[1:, 1] < before])
    first_end = published.ends[0][0]
    return np.asarray(points[lowest & (points[:, 0] >= first_end)])


def _refit(panel: ScalingPanel, attention: PublishedAttention, method: RefitMethod) -> Refit:
    published = panel.under(attention)
    points = np.array(published.ends) if method == "ends" else lower_envelope(published)
    law = fit_power_law(points[:, 0], points[:, 1])
    assert law.k is not None
    assert law.a is not None
    # Lines in log space are farthest apart at an end.
    outer = [published.ends[0][0], published.ends[-1][0]]
    a, b = law.k.value, law.a.value
    relative = max(abs(a * c**b / (published.a * c**published.b) - 1) for c in outer)
    return Refit(
        panel=panel.label,
        attention=attention,
        method=method,
        points=len(points),
        a=a,
        b=b,
        a_difference=a - published.a,
        b_difference=b - published.b,
        relative_difference=relative,
    )
