"""Which variants of a study the paper has as well, and its values relative to the baseline's.

Of arXiv 2404.02258, figures 3 and 4.
"""

from __future__ import annotations

import pandas as pd

from isoflop.config import RandomK, Study, TopK, Variant
from isoflop.papers.claims import Roles
from isoflop.papers.mod import PublishedMinimum, mod_figures

OURS = "this study"
PUBLISHED = "published (digitised, approximate)"
COLUMNS = ["source", "variant", "what", "x_ratio", "loss_ratio"]


def counterparts(study: Study) -> dict[str, str]:
    """Return the study's name for each published variant that it has as well."""
    found = {"baseline": study.baseline_variant.name}
    for variant in study.variants:
        for published in _published_names(variant):
            found.setdefault(published, variant.name)
    return found


def roles(study: Study) -> Roles | None:
    """Return which variant plays which part in the published claims; None without a routed one."""
    known = counterparts(study)
    challenger = study.challenger_variant
    sparse = known.get("mod") or (challenger.name if challenger else None)
    if sparse is None or sparse == known["baseline"]:
        return None
    return Roles(
        baseline=known["baseline"],
        sparse=sparse,
        dense=known.get("mod_50_every_2"),
        random=known.get("mod_50_random_every_2"),
    )


def published_minima(study: Study) -> pd.DataFrame:
    """Return the published minima of the study's routed variants relative to the baseline's.

    Columns as `COLUMNS`; `x_ratio` is of parameters, missing where the figure does not tell it.
    """
    known = counterparts(study)
    rows = []
    for label, minima in (
        ("Figure 3", mod_figures().figure3.minima),
        ("Figure 4", mod_figures().figure4.minima),
    ):
        baselines = {m.budget_flops: m for m in minima if m.variant == "baseline"}
        rows += [
            (
                PUBLISHED,
                known[minimum.variant],
                f"{label}, {minimum.budget_flops:.0e}".replace("+", ""),
                _size_ratio(minimum, baselines[minimum.budget_flops]),
                minimum.loss / baselines[minimum.budget_flops].loss,
            )
            for minimum in minima
            if minimum.variant in known and minimum.variant != "baseline"
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def published_points(study: Study) -> pd.DataFrame:
    """Return the published points of Figure 4, right; `x_ratio` is of forward FLOPs."""
    known = counterparts(study)
    rows = [
        (PUBLISHED, known["mod"], point.name.replace("_", " "), point.forward_flops, point.loss)
        for point in mod_figures().figure4.points
        if "mod" in known and point.name != "optimal_baseline"
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _published_names(variant: Variant) -> tuple[str, ...]:
    match variant.depth:
        case TopK(capacity=0.125, every=2, blocks=None):
            return ("mod_12.5_every_2", "mod")
        case TopK(capacity=0.5, every=2, blocks=None):
            return ("mod_50_every_2",)
        case RandomK(capacity=0.5, every=2, blocks=None):
            return ("mod_50_random_every_2",)
        case _:
            return ()


def _size_ratio(minimum: PublishedMinimum, baseline: PublishedMinimum) -> float | None:
    if minimum.parameters is None or baseline.parameters is None:
        return None
    return minimum.parameters / baseline.parameters
