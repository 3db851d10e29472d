from pathlib import Path

import numpy as np
import pytest

from isoflop.config import TopK, Variant
from isoflop.papers.mod import mod_figures, roles
from sweep_studies import tiny


def test_minima_have_the_published_order_and_size() -> None:
    minima = mod_figures()["minima"]
    first = minima[minima["figure"] == "Figure 3"].set_index("variant")
    assert set(minima["budget_flops"]) == {6e18, 2e19, 1e20}
    assert first["loss"].sort_values().index.tolist() == [
        "mod_12.5_every_2",
        "baseline",
        "mod_50_random_every_2",
    ]
    assert np.isnan(first.loc["mod_50_random_every_2", "parameters_low"])
    second = minima[minima["figure"] == "Figure 4"]
    for _, at in second.set_index("variant").groupby("budget_flops"):
        assert at.loc["mod", "loss"] < at.loc["baseline", "loss"]
        assert at.loc["mod", "parameters_low"] > at.loc["baseline", "parameters_high"] / 2


def test_models_have_the_published_flop_ratios() -> None:
    models = mod_figures()["models"].set_index("number")
    flops, steps = models["flops_per_step"], models["steps_per_second"]
    assert flops[3] / flops[1] == pytest.approx(0.655, abs=1e-3)
    assert flops[4] / flops[2] == pytest.approx(0.643, abs=1e-3)
    assert steps[3] > steps[1]


def test_no_variant_is_held_against_itself() -> None:
    half = Variant(name="MoD 50%", depth=TopK(capacity=0.5))
    found = roles(tiny(Path("text.txt"), Variant(name="Baseline"), half))
    assert (found.sparse, found.dense) == ("MoD 50%", None)
