"""The published curves and lines of block attention, and our refits of them."""

import numpy as np
import pytest

from isoflop.papers.moba import (
    PublishedScaling,
    lower_envelope,
    moba_scaling,
    refit_published_scaling,
    refit_table,
)


def test_panels_come_in_order_with_their_positions() -> None:
    panels = moba_scaling().panels
    assert [panel.label for panel in panels[:3]] == ["8K", "32K last2K", "0k-2k"]
    assert (panels[0].context_length, panels[0].start, panels[0].stop) == (8192, 0, 8192)
    assert (panels[1].start, panels[1].stop) == (30 * 1024, 32 * 1024)
    ranges = panels[2:]
    assert [panel.start for panel in ranges] == list(range(0, 32 * 1024, 2048))
    assert all(panel.stop - panel.start == 2048 for panel in ranges)
    assert {panel.context_length for panel in panels[1:]} == {32 * 1024}


def test_published_coefficients() -> None:
    first, last = moba_scaling().panels[0], moba_scaling().panels[-1]
    assert (first.moba.a, first.moba.b) == (2.625, -0.063)
    assert (first.full.a, first.full.b) == (2.622, -0.063)
    assert (last.moba.a, last.moba.b) == (1.546, -0.108)


def test_curves_are_of_five_sizes_trained_alike_by_both_attentions() -> None:
    for panel in moba_scaling().panels:
        assert len(panel.moba.curves) == len(panel.full.curves) == 5
        ends = [compute for compute, _ in panel.moba.ends]
        assert ends == [compute for compute, _ in panel.full.ends]
        assert ends == sorted(ends)
        for curve in (*panel.moba.curves, *panel.full.curves):
            compute = [point[0] for point in curve]
            assert compute == sorted(compute)
            assert curve[0][1] > curve[-1][1]


def test_lines_pass_within_5_percent_of_where_curves_end() -> None:
    for panel in moba_scaling().panels:
        for one in (panel.moba, panel.full):
            for compute, loss in one.ends:
                assert loss == pytest.approx(one.a * compute**one.b, rel=0.05)


def test_every_panel_attention_and_method_is_refitted() -> None:
    refits = refit_published_scaling()
    panels = [panel.label for panel in moba_scaling().panels]
    assert [one.panel for one in refits[::4]] == panels
    assert len({(one.panel, one.attention, one.method) for one in refits}) == 18 * 2 * 2
    assert {one.points for one in refits if one.method == "ends"} == {5}
    assert min(one.points for one in refits if one.method == "envelope") > 20
    table = refit_table()
    assert len(table) == len(refits)
    assert table["b"].tolist() == [one.b for one in refits]


def test_ends_of_the_8k_panel_give_the_published_line() -> None:
    for one in refit_published_scaling()[:4]:
        if one.method == "ends":
            # Coefficients are printed to three decimals.
            assert one.a == pytest.approx(2.622, abs=0.005)
            assert one.b == pytest.approx(-0.063, abs=0.001)
            assert one.relative_difference < 0.002


def test_medians_are_those_of_the_documentation() -> None:
    table = refit_table()
    table["a_difference"] = table["a_difference"].abs()
    table["b_difference"] = table["b_difference"].abs()
    columns = ["a_difference", "b_difference", "relative_difference"]
    medians = table.groupby("method")[columns].median()
    assert medians.loc["ends"].tolist() == pytest.approx([0.0048, 0.0057, 0.0106], abs=5e-5)
    assert medians.loc["envelope"].tolist() == pytest.approx([0.0085, 0.0029, 0.0091], abs=5e-5)
    assert table.groupby("method")["relative_difference"].max().tolist() == pytest.approx(
        [0.0204, 0.0285], abs=5e-5
    )
    nearest = table.loc[table.groupby(["panel", "attention"])["relative_difference"].idxmin()]
    assert nearest["method"].value_counts().to_dict() == {"envelope": 20, "ends": 16}


def test_differences_are_those_of_the_two_lines() -> None:
    one = refit_published_scaling()[5]
    panel = moba_scaling().panels[1].under("moba")
    assert (one.panel, one.attention, one.method) == ("32K last2K", "moba", "envelope")
    assert one.a_difference == pytest.approx(one.a - panel.a)
    assert one.b_difference == pytest.approx(one.b - panel.b)
    compute = np.geomspace(panel.ends[0][0], panel.ends[-1][0], 1001)
    apart = one.a * compute**one.b / (panel.a * compute**panel.b) - 1
    assert one.relative_difference == pytest.approx(np.abs(apart).max())


def test_the_envelope_is_what_no_cheaper_point_beats() -> None:
    curves = (
        ((0.1, 9.0), (0.5, 4.0), (1.0, 3.0)),
        ((0.4, 8.0), (1.1, 3.5), (1.5, 2.9), (2.0, 2.5)),
        ((1.8, 7.0), (2.1, 2.6), (4.0, 2.0)),
    )
    published = PublishedScaling(a=3.0, b=-0.3, curves=curves)
    assert lower_envelope(published).tolist() == [[1.0, 3.0], [1.5, 2.9], [2.0, 2.5], [4.0, 2.0]]
