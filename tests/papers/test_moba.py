"""The published curves and lines of block attention, and our refits of them."""

import numpy as np
import pandas as pd
import pytest

from isoflop.papers.moba import ATTENTIONS, lower_envelope, published_scaling, refits


def test_panels_come_in_order_with_their_positions_and_coefficients():
    _, lines = published_scaling()
    assert list(lines["attention"]) == [*ATTENTIONS] * 18
    panels = lines[lines["attention"] == "moba"]
    assert list(panels["panel"])[:3] == ["8K", "32K last2K", "0k-2k"]
    assert list(panels["context_length"]) == [8192, *[32 * 1024] * 17]
    assert list(panels["start"]) == [0, 30 * 1024, *range(0, 32 * 1024, 2048)]
    assert list(panels["stop"] - panels["start"]) == [8192, *[2048] * 17]
    assert lines[["a", "b"]].iloc[[0, 1, -2]].to_numpy().tolist() == [
        [2.625, -0.063],
        [2.622, -0.063],
        [1.546, -0.108],
    ]


def test_curves_of_both_attentions_end_alike_near_their_lines():
    points, lines = published_scaling()
    for _, curve in points.groupby(["panel", "attention", "curve"]):
        assert curve["compute"].is_monotonic_increasing
        assert curve["loss"].iloc[0] > curve["loss"].iloc[-1]
    ends = points.groupby(["panel", "attention", "curve"], as_index=False).last()
    compute = ends.pivot(index=["panel", "curve"], columns="attention", values="compute")
    assert len(compute) == 18 * 5
    assert (compute["moba"] == compute["full"]).all()
    assert all(one.is_monotonic_increasing for _, one in compute["moba"].groupby("panel"))
    ends = ends.merge(lines, on=["panel", "attention"])
    assert ends["loss"].to_numpy() == pytest.approx(
        ends["a"] * ends["compute"] ** ends["b"], rel=0.05
    )


def test_ends_of_the_8k_panel_give_the_published_line():
    found = refits()
    ends = found[(found["panel"] == "8K") & (found["method"] == "ends")]
    # Coefficients are printed to three decimals.
    assert ends["a"].to_numpy() == pytest.approx(2.622, abs=0.005)
    assert ends["b"].to_numpy() == pytest.approx(-0.063, abs=0.001)
    assert ends["relative_difference"].max() < 0.002


def test_medians_are_those_of_the_documentation():
    table = refits()
    assert len(table) == 18 * 2 * 2
    assert set(table.loc[table["method"] == "ends", "points"]) == {5}
    assert table.loc[table["method"] == "envelope", "points"].min() > 20
    columns = ["a_difference", "b_difference", "relative_difference"]
    medians = table[columns].abs().groupby(table["method"]).median()
    assert medians.loc["ends"].tolist() == pytest.approx([0.0048, 0.0057, 0.0106], abs=5e-5)
    assert medians.loc["envelope"].tolist() == pytest.approx([0.0085, 0.0029, 0.0091], abs=5e-5)
    assert table.groupby("method")["relative_difference"].max().tolist() == pytest.approx(
        [0.0204, 0.0285], abs=5e-5
    )
    nearest = table.loc[table.groupby(["panel", "attention"])["relative_difference"].idxmin()]
    assert nearest["method"].value_counts().to_dict() == {"envelope": 20, "ends": 16}


def test_differences_are_those_of_the_two_lines():
    points, lines = published_scaling()
    one, line = refits().iloc[5], lines.iloc[2]
    assert (one["panel"], one["attention"], one["method"]) == ("32K last2K", "moba", "envelope")
    assert one["a_difference"] == pytest.approx(one["a"] - line["a"])
    assert one["b_difference"] == pytest.approx(one["b"] - line["b"])
    own = points[(points["panel"] == "32K last2K") & (points["attention"] == "moba")]
    ends = own.groupby("curve")["compute"].max()
    compute = np.geomspace(ends.min(), ends.max(), 1001)
    apart = one["a"] * compute ** one["b"] / (line["a"] * compute ** line["b"]) - 1
    assert one["relative_difference"] == pytest.approx(np.abs(apart).max())


def test_the_envelope_is_what_no_cheaper_point_beats():
    points = [
        *[(0, 0.1, 9.0), (0, 0.5, 4.0), (0, 1.0, 3.0)],
        *[(1, 0.4, 8.0), (1, 1.1, 3.5), (1, 1.5, 2.9), (1, 2.0, 2.5)],
        *[(2, 1.8, 7.0), (2, 2.1, 2.6), (2, 4.0, 2.0)],
    ]
    found = lower_envelope(pd.DataFrame(points, columns=["curve", "compute", "loss"]))
    kept = [[1.0, 3.0], [1.5, 2.9], [2.0, 2.5], [4.0, 2.0]]
    assert found[["compute", "loss"]].to_numpy().tolist() == kept
