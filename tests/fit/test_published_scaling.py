import numpy as np
import pytest

from isoflop.fit.published_scaling import lower_envelope, refit_published_scaling, refit_table
from isoflop.reference import PublishedScaling, moba_scaling


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
