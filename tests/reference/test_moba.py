from importlib import resources

import pytest
from pydantic import ValidationError

from isoflop.reference import moba_scaling


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


def test_values_are_frozen_and_the_data_is_in_the_package() -> None:
    with pytest.raises(ValidationError):
        moba_scaling().panels[0].moba.a = 1.0  # type: ignore[misc]
    home = resources.files("isoflop.reference")
    assert home.joinpath("moba_fits.json").is_file()
    assert home.joinpath("moba_curves.json").is_file()
