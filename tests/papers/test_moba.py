"""The published curves and lines of block attention, and our refits of them."""

import numpy as np
import pytest

from isoflop.papers.moba import ATTENTIONS, published_scaling


def test_panels_come_in_order_with_their_positions_and_coefficients():
    _, lines = published_scaling()
    assert list(lines["attention"]) == [*ATTENTIONS.values()] * 18
    panels = lines[lines["attention"] == "MoBA"]
    assert panels["panel"].tolist()[-3:] == ["30K–32K", "all of an 8K context", "last 2K of 32K"]
    assert list(panels["context_length"]) == [*[32 * 1024] * 16, 8192, 32 * 1024]
    assert list(panels["start"]) == [*range(0, 32 * 1024, 2048), 0, 30 * 1024]
    assert list(panels["stop"] - panels["start"]) == [*[2048] * 16, 8192, 2048]
    published = lines[["a", "b"]].iloc[[-4, -3, 30]].to_numpy().tolist()
    assert published == [[2.625, -0.063], [2.622, -0.063], [1.546, -0.108]]


def test_curves_of_both_attentions_end_alike_near_their_lines():
    points, lines = published_scaling()
    for _, curve in points.groupby(["panel", "attention", "curve"]):
        assert curve["compute"].is_monotonic_increasing
        assert curve["loss"].iloc[0] > curve["loss"].iloc[-1]
    ends = points.groupby(["panel", "attention", "curve"], as_index=False).last()
    compute = ends.pivot(index=["panel", "curve"], columns="attention", values="compute")
    assert len(compute) == 18 * 5
    assert (compute["MoBA"] == compute["full attention"]).all()
    assert all(one.is_monotonic_increasing for _, one in compute["MoBA"].groupby("panel"))
    ends = ends.merge(lines, on=["panel", "attention"])
    for a, b in (("a", "b"), ("refit_a", "refit_b")):
        fitted = ends[a] * ends["compute"] ** ends[b]
        assert ends["loss"].to_numpy() == pytest.approx(fitted, rel=0.05)


def test_medians_are_those_of_the_documentation_and_distances_those_of_the_lines():
    _, lines = published_scaling()
    apart = [(lines[f"refit_{one}"] - lines[one]).abs().median() for one in "ab"]
    assert [*apart, lines["apart"].median()] == pytest.approx([0.0048, 0.0057, 0.0106], abs=5e-5)
    assert lines["apart"].max() == pytest.approx(0.0204, abs=5e-5)
    whole = lines[lines["panel"] == "all of an 8K context"]
    # Coefficients are printed to three decimals.
    assert whole["refit_a"].to_numpy() == pytest.approx(2.622, abs=0.005)
    assert whole["refit_b"].to_numpy() == pytest.approx(-0.063, abs=0.001)
    one = lines.iloc[2]
    compute = np.geomspace(one["first"], one["last"], 1001)
    apart = one["refit_a"] * compute ** one["refit_b"] / (one["a"] * compute ** one["b"]) - 1
    assert one["apart"] == pytest.approx(np.abs(apart).max())
