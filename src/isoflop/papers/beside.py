"""Which variants of a study the paper has as well, and its values relative to the baseline's.

Of arXiv 2404.02258, figures 3 and 4.
"""

from __future__ import annotations

import pandas as pd

from isoflop.config import RandomK, Study, TopK
from isoflop.papers.claims import Roles
from isoflop.papers.mod import mod_figures

OURS = "this study"
PUBLISHED = "published (digitised, approximate)"
COLUMNS = ["source", "variant", "what", "x_ratio", "loss_ratio"]


def counterparts(study: Study) -> dict[str, str]:
    """Return the study's name for each published variant that it has as well."""
    found = {"baseline": study.baseline_variant.name}
    for variant in study.variants:
        match variant.depth:
            case TopK(capacity=0.125, every=2, blocks=None):
                published: tuple[str, ...] = ("mod_12.5_every_2", "mod")
            case TopK(capacity=0.5, every=2, blocks=None):
                published = ("mod_50_every_2",)
            case RandomK(capacity=0.5, every=2, blocks=None):
                published = ("mod_50_random_every_2",)
            case _:
                published = ()
        found = {**dict.fromkeys(published, variant.name), **found}
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
        for one in minima:
            if one.variant in known and one.variant != "baseline":
                base = baselines[one.budget_flops]
                sizes = one.parameters, base.parameters
                size = sizes[0] / sizes[1] if sizes[0] and sizes[1] else None
                what = f"{label}, {one.budget_flops:.0e}".replace("+", "")
                rows.append((PUBLISHED, known[one.variant], what, size, one.loss / base.loss))
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
