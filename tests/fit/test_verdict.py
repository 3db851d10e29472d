"""Verdicts: what is known of two variants, said no more surely than the runs allow."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from isoflop.estimate import Estimate
from isoflop.fit import FitSettings, sentence
from isoflop.fit.compare.verdict import BudgetVerdict, verdicts
from isoflop.fit.curves.minima import minima
from isoflop.fit.intervals import holm
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.words import doubt_sentence, estimates_sentence, fraction_sentence

MakeRuns = Callable[..., pd.DataFrame]
SHIFTS = (-0.002, -0.001, 0.0, 0.001, 0.002)


def two_budgets(runs: MakeRuns, gain: float, slope: float = -0.05, **shape: float) -> pd.DataFrame:
    """Return a table whose minima fall by `slope` per e-fold of compute; MoD is lower by `gain`."""
    parts = []
    for budget in (5e12, 5e13):
        loss = 1.2 + slope * np.log(budget / 5e12)
        variants = {"Baseline": {"loss": loss, **shape}, "MoD": {"loss": loss - gain, **shape}}
        parts.append(runs(variants, budget=budget, seed_shifts=SHIFTS, paired=True))
    return pd.concat(parts, ignore_index=True)


def judged(table: pd.DataFrame, found=(), base="Baseline", **options) -> tuple[BudgetVerdict, ...]:
    """Return the verdicts, with `estimates` of the minima found."""
    return verdicts(CurveDraws(table, FitSettings(**options)), base, found)


def test_a_clear_gain_is_better_and_says_what_compute_it_saves(runs: MakeRuns) -> None:
    table = two_budgets(runs, gain=0.02)
    first, second = judged(table)
    assert (first.outcome, second.outcome) == ("better", "better")
    assert first.difference.interval.value == pytest.approx(-0.02, abs=1e-6)
    m = first.multiplier.interval
    # A line in log loss over log compute, so nearly 0.05 per e-fold: exp(-0.02 / 0.05).
    assert m.value == pytest.approx(np.exp(-0.02 / 0.05), rel=0.05)
    assert m.low < m.value < m.high < 1
    # It hangs little on the irreducible loss.
    values = [value for _, value in first.multiplier.sensitivity]
    assert len(values) >= 2
    assert max(values) / min(values) < 1.2
    assert "needs 0.6" in sentence(first)
    assert "At 5e12 FLOPs MoD" in sentence(first)
    # Not significant among many, though its own interval lies below 0.
    among_many = first.model_copy(update={"outcome": "unresolved"})
    assert sentence(among_many).endswith("excludes 0, but not once corrected for all comparisons.")


def test_a_multiplier_on_both_sides_of_one_is_no_claim(runs: MakeRuns) -> None:
    first = judged(two_budgets(runs, gain=0.02))[0]
    wide = Estimate(value=0.88, low=0.78, high=1.03)
    unsure = first.multiplier.model_copy(update={"interval": wide})
    said = sentence(first.model_copy(update={"multiplier": unsure}))
    assert "MoD is below Baseline: a loss difference of -0.0200" in said
    assert said.endswith("; it needs 0.88x [0.78, 1.03] the compute of Baseline.")


def test_the_share_of_forward_flops_at_equal_loss_is_told(runs: MakeRuns) -> None:
    first = judged(two_budgets(runs, gain=0.02))[0]
    found = first.forward_fraction
    # 0.02 x^2 = 0.02 at x = -1, on lines between sizes a factor of 1.6 apart.
    assert found.value == pytest.approx(np.exp(-1), rel=0.05)
    assert found.low < found.value < found.high < 0.6
    assert "the minimum loss of Baseline at 0.3" in fraction_sentence(first)
    same = judged(two_budgets(runs, gain=-0.02))[0]
    assert same.forward_fraction is None
    assert fraction_sentence(same) is None


def test_what_each_estimator_says_of_the_difference_is_told(runs: MakeRuns) -> None:
    table = two_budgets(runs, gain=0.02)
    table["loss"] += 0.002 * np.random.default_rng(0).standard_normal(len(table))
    first = judged(table, minima(table))[0]
    assert first.estimates["parabola"] == first.difference.interval.value
    assert first.estimates["akima"] == pytest.approx(-0.02, abs=3e-3)
    assert estimates_sentence(first).endswith("(least-squares surface).")
    assert doubt_sentence(first) is None
    alone = judged(table, minima(table, ("parabola",)))[0]
    assert list(alone.estimates) == ["parabola"]
    assert (doubt_sentence(alone), estimates_sentence(alone)) == (None, None)
    for other, doubt in ((-0.09, "further apart than that interval tells."), (0.01, "its sign.")):
        estimates = {**first.estimates, "akima": other}
        doubted = first.model_copy(update={"estimates": estimates})
        assert estimates_sentence(doubted).endswith(doubt)
        said = doubt_sentence(doubted)
        assert said.startswith(f"By 4 estimators it is {min(estimates.values()):+.4f} to ")
        assert said.endswith(doubt)


@pytest.mark.parametrize(
    ("gain", "noise", "margin", "outcomes"),
    [
        (0.02, 0.0, None, {"better"}),
        (-0.02, 0.0, None, {"worse"}),
        (0.0, 0.01, None, {"unresolved"}),
        (0.0005, 0.0003, 0.005, {"equivalent"}),
        (0.0005, 0.0003, 1e-5, {"better", "unresolved"}),
    ],
)
def test_an_outcome_stands_beyond_the_noise_and_within_the_margin(
    runs: MakeRuns, gain, noise, margin, outcomes
) -> None:
    table = two_budgets(runs, gain=gain)
    table["loss"] += noise * np.random.default_rng(1).standard_normal(len(table))
    found = judged(table, margin=margin)
    assert {one.outcome for one in found} <= outcomes
    for one in found:
        assert ("unresolved" in sentence(one)) == (one.outcome == "unresolved")
        assert ("equals" in sentence(one)) == (one.outcome == "equivalent")


def test_runs_off_their_parabola_widen_the_interval_though_seeds_agree(runs: MakeRuns) -> None:
    table = two_budgets(runs, gain=0.02)
    exact = judged(table)[0]
    sizes = sorted(table["parameters"].unique())
    stuck = (table["variant"] == "MoD") & table["parameters"].isin(sizes[:1])
    bent = judged(table.assign(loss=table["loss"] + 0.03 * stuck))[0]
    narrow, wide = exact.difference.interval, bent.difference.interval
    assert narrow.high - narrow.low < 1e-6
    # The bend alone moves the minimum by 0.003: the interval must allow for it.
    moved = abs(wide.value - narrow.value)
    assert moved > 0.001
    assert wide.low <= narrow.value <= wide.high


def test_seeds_in_common_are_paired(runs: MakeRuns) -> None:
    # Seeds move both variants alike, by far more than the variants differ.
    table = two_budgets(runs, gain=0.003, noise=20.0)
    paired = judged(table)[0]
    assert paired.difference.paired
    assert paired.outcome == "better"
    apart = table.copy()
    apart.loc[apart["variant"] == "MoD", "seed"] += 100
    unpaired = judged(apart)[0]
    assert not unpaired.difference.paired
    assert unpaired.outcome == "unresolved"


@pytest.mark.parametrize("at", [2e5, 1e9])
def test_one_budget_has_no_multiplier_and_no_minimum_no_comparison(runs: MakeRuns, at) -> None:
    table = runs({"Baseline": {"loss": 1.2}, "MoD": {"loss": 1.19, "at": at}}, seed_shifts=SHIFTS)
    (verdict,) = judged(table)
    assert verdict.multiplier is None
    assert (verdict.difference is None) == ("cannot be compared" in sentence(verdict)) == (at > 1e8)


def test_holm_is_the_step_down_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_many_comparisons_make_a_verdict_harder(runs: MakeRuns) -> None:
    names = {f"v{i}": {"loss": 1.2} for i in range(8)}
    table = runs({"Baseline": {"loss": 1.2}, "MoD": {"loss": 1.1965}, **names}, seed_shifts=SHIFTS)
    table["loss"] += 0.001 * np.random.default_rng(2).standard_normal(len(table))
    alone = judged(table[table["variant"].isin(["Baseline", "MoD"])])[0]
    among = next(one for one in judged(table) if one.variant == "MoD")
    assert among.p_adjusted > 3 * alone.p_adjusted
    with pytest.raises(ValueError, match="baseline is 'nobody'"):
        judged(table, base="nobody")
