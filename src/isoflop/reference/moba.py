"""Scaling curves and fits of Mixture of Block Attention (arXiv 2502.13189); approximate.

The coefficients of the fits are the published ones; the curves are digitised from the figures.
`moba_fits.json` and `moba_curves.json` hold them.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any, Literal

from isoflop.config import Frozen

PublishedAttention = Literal["moba", "full"]

ATTENTIONS: tuple[PublishedAttention, ...] = ("moba", "full")


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


@cache
def moba_scaling() -> MobaScaling:
    """Return the published curves and fits of loss against compute.

    arXiv 2502.13189, section 3.1 and the appendix by position: five models of 545M to 2.1B
    parameters without embeddings, blocks of 512, top_k of 3. Read off figures, so approximate.
    """
    fits, curves = _read("moba_fits.json"), _read("moba_curves.json")
    return MobaScaling(panels=tuple(_panel(label, fits[label], curves[label]) for label in fits))


def _read(name: str) -> dict[str, Any]:
    source = resources.files("isoflop.reference").joinpath(name)
    raw: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return raw


def _panel(label: str, fits: dict[str, Any], curves: dict[str, Any]) -> ScalingPanel:
    found = re.fullmatch(r"(\d+)k-(\d+)k", label)
    if found:
        context, start, stop = 32, int(found[1]), int(found[2])
    else:
        context, start, stop = {"8K": (8, 0, 8), "32K last2K": (32, 30, 32)}[label]
    of = {
        name: PublishedScaling(a=fits[name]["a"], b=fits[name]["b"], curves=curves[name])
        for name in ATTENTIONS
    }
    return ScalingPanel(
        label=label,
        context_length=1024 * context,
        start=1024 * start,
        stop=1024 * stop,
        moba=of["moba"],
        full=of["full"],
    )
