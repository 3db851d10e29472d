"""Values read off figures 3 and 4 of Mixture-of-Depths (arXiv 2404.02258), approximate, and which
variants of a study are those of the paper."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from isoflop.config import RandomK, Study, TopK
from isoflop.papers.claims import Roles

OURS = "this study"
PUBLISHED = "published (digitised, approximate)"
COLUMNS = ["source", "variant", "what", "x_ratio", "loss_ratio"]
"""Of values relative to the optimal baseline's, ours and published ones."""


@cache
def mod_figures() -> dict[str, pd.DataFrame]:
    """Return what the figures show, as tables.

    `minima` has the lowest loss (nats per token) of each `variant` at each `budget_flops` of a
    `figure`, and the range of `parameters_low` to `parameters_high` in which it lies, NaN where the
    figure does not tell; `models` the four models that Figure 3 singles out by `number`, steps a
    second being those of a TPUv5; `points` those of Figure 4, right, both coordinates relative to
    the optimal baseline.
    """
    source = resources.files("isoflop.papers").joinpath("mod_figures.json")
    return {name: pd.DataFrame(rows) for name, rows in json.loads(source.read_bytes()).items()}


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
    # Nobody plays two parts: a variant is not held against itself.
    others = {"dense": known.get("mod_50_every_2"), "random": known.get("mod_50_random_every_2")}
    taken = {known["baseline"], sparse}
    return Roles(
        baseline=known["baseline"],
        sparse=sparse,
        **{part: name for part, name in others.items() if name not in taken},
    )


def published_minima(study: Study) -> pd.DataFrame:
    """Return the published minima of the study's routed variants relative to the baseline's.

    Columns as `COLUMNS`; `x_ratio` is of parameters, missing where the figure does not tell it.
    """
    minima = mod_figures()["minima"]
    minima = minima.assign(
        parameters=np.sqrt(minima["parameters_low"] * minima["parameters_high"]),
        variant=minima["variant"].map(counterparts(study)),
        routed=minima["variant"] != "baseline",
    )
    keys = ["figure", "budget_flops"]
    base = minima.loc[~minima["routed"], [*keys, "parameters", "loss"]]
    own = minima[minima["routed"]].dropna(subset=["variant"])
    own = own.merge(base, "left", on=keys, suffixes=("", "_base"))
    places = zip(own["figure"], own["budget_flops"], strict=True)
    return own.assign(
        source=PUBLISHED,
        what=[f"{figure}, {budget:.0e}".replace("+", "") for figure, budget in places],
        x_ratio=own["parameters"] / own["parameters_base"],
        loss_ratio=own["loss"] / own["loss_base"],
    )[COLUMNS]


def published_points(study: Study) -> pd.DataFrame:
    """Return the published points of Figure 4, right; `x_ratio` is of forward FLOPs."""
    points = mod_figures()["points"].query("name != 'optimal_baseline'")
    known = counterparts(study).get("mod")
    found = points.assign(
        source=PUBLISHED,
        variant=known,
        what=points["name"].str.replace("_", " "),
        x_ratio=points["forward_flops"],
        loss_ratio=points["loss"],
    )
    return found.loc[found["variant"].notna(), COLUMNS].reset_index(drop=True)
