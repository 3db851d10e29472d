"""The league on a page: ranking, what each variant costs, and what is left out."""

from __future__ import annotations

import math

import pytest
import synthetic_study as synthetic
from made_reports import absent_of, analysed, bench_rows, figures_of, html_of, table_of
from test_page import Elements

from isoflop.config import Own, Variant
from isoflop.report.sections import league, relative_loss, sections
from isoflop.report.words import prose

CAPTION = "All variants"
TWO = (5e12, 2e13)


def rows_of(analysis):
    table = table_of(analysis, CAPTION)
    return table.data.set_index(["budget_flops", "variant"])


@pytest.fixture(scope="module")
def two_budgets():
    """Return variants whose steps, of as many FLOPs, take the baseline's time, twice and half."""
    study = synthetic.study(TWO, (0, 1), synthetic.VARIANTS[:3])
    runs, times = synthetic.runs(study), {"Baseline": 1.0, "MoD 12.5%": 2.0, "MoD 50%": 0.5}
    speeds = [
        one.model_copy(update={"steps_per_second": one.steps_per_second / times[one.variant]})
        for one in bench_rows(runs)
    ]
    return analysed(study, runs, speeds=speeds)


def test_two_variants_make_no_league(pair):
    assert league.section(pair) is None


def test_a_row_tells_place_difference_and_costs_at_the_minimum(analysis):
    data = rows_of(analysis).loc[5e12]
    assert list(data.index) == ["MoD 12.5%", "MoD 50%", "Baseline", "MoD 50%, random"]
    assert data["loss"].is_monotonic_increasing
    assert data["first"].tolist() == data["last"].tolist() == [1, 2, 3, 4]
    base, sparse = data.loc["Baseline"], data.loc["MoD 12.5%"]
    assert sparse["difference"] == pytest.approx(sparse["loss"] - base["loss"])
    assert sparse["difference_high"] < 0
    assert math.isnan(base["difference"])
    assert sparse["forward_share"] < 1 == base["forward_share"]
    assert base["active"] == pytest.approx(base["parameters"])
    assert 0.5 < sparse["active"] / sparse["parameters"] < 0.9
    # A whole block keeps keys and values of every token, one that is routed of an eighth.
    assert sparse["cache_bytes"] < base["cache_bytes"]
    # At 2e10 FLOP/s, as measured.
    assert data["seconds"].tolist() == pytest.approx([250.0] * 4, rel=0.01)
    # One budget tells neither what the baseline's loss costs in compute nor losses in equal time.
    assert data[["multiplier", "loss_at_equal_time"]].drop("Baseline").isna().all(axis=None)
    assert figures_of(analysis)["league-compute"].title.startswith("Forward FLOPs")
    assert "takes runs at two budgets." in prose.told("league", "forward_share", analysis)[0]


def test_budgets_tell_multipliers_and_losses_at_equal_time(two_budgets):
    data = rows_of(two_budgets)
    assert "two budgets" not in prose.told("league", "forward_share", two_budgets)[0]
    assert list(figures_of(two_budgets))[1:4] == [
        "league-losses",
        "league-compute",
        "league-budgets",
    ]
    for budget in TWO:
        base, slow, quick = (
            data.loc[budget, name] for name in ("Baseline", "MoD 12.5%", "MoD 50%")
        )
        assert base["loss_at_equal_time"] == pytest.approx(base["loss"])
        assert slow["loss_at_equal_time"] > slow["loss"]
        assert quick["loss_at_equal_time"] < quick["loss"]
        assert slow["multiplier_low"] < slow["multiplier"] < slow["multiplier_high"] < 1
    # A quarter of the larger budget is the smaller one, and half lies between on a line of logs.
    losses = [math.log(data.loc[budget, "MoD 12.5%"]["loss"]) for budget in TWO]
    half = math.exp(sum(losses) / 2)
    assert data.loc[2e13, "MoD 12.5%"]["loss_at_equal_time"] == pytest.approx(half, rel=1e-3)


def test_speeds_are_those_measured_and_else_missing(study, runs):
    found = analysed(study, runs)
    assert rows_of(found)[["seconds", "steps_per_second"]].isna().all(axis=None)
    assert "Speeds are not measured" in table_of(found, CAPTION).caption


def test_an_unfinished_study_is_told_and_not_ranked_further_than_it_goes(study, runs):
    some = [
        one
        for one in runs
        if one[0] != "MoD 50%" and (one[0] != "MoD 12.5%" or not one[2].config.seed)
    ]
    found = analysed(study, some)
    words = Elements(html_of(found)).words
    assert "Baseline has the lowest loss of those whose noise is known" in words
    assert "Not ranked: MoD 50% (no finished runs)." in words
    assert len(rows_of(found)) == 3
    lone = analysed(study, [one for one in runs if one[0] == "Baseline"])
    assert "Nothing is told apart: fewer than two" in Elements(html_of(lone)).words
    assert "league-losses" not in figures_of(lone)
    none_reaches = [one for one in runs if one[0] in ("Baseline", "MoD 50%, random")]
    assert "Forward FLOPs for the baseline's loss" in absent_of(analysed(study, none_reaches))


def test_experts_are_shown_over_active_parameters_and_others_are_not(study, runs):
    assert relative_loss.over_active(analysed(study, runs)) is None
    own = Own(kind="unknown_experts", source="0" * 64)
    told = []
    for name, budget, one in runs:
        if name == "MoD 50%":
            model = one.config.model.model_copy(update={"feed_forward": own})
            config = one.config.model_copy(update={"model": model})
            one = one.model_copy(update={"config": config})
        told.append((name, budget, one))
    variants = [
        Variant(name=one.name, feed_forward=own) if one.name == "MoD 50%" else one
        for one in study.variants
    ]
    found = analysed(study.model_copy(update={"variants": tuple(variants)}), told)
    table = figures_of(found)["active-parameters-5e12"].table.set_index("variant")
    assert (table.loc["MoD 50%", "active"] < table.loc["MoD 50%", "parameters"]).all()
    assert (table.loc["Baseline", "active"] == table.loc["Baseline", "parameters"]).all()
    # What only the variant's own file tells is missing, and nothing else is.
    row = rows_of(found).loc[5e12, "MoD 50%"]
    assert math.isnan(row["cache_bytes"])
    assert row["forward_flops"] > 0
    assert [one.title for one in sections(found)].count("League") == 1
