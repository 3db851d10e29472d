"""Many verdicts in few sentences: counted by variant, refusals told once for each reason."""

from collections.abc import Callable

import pandas as pd
import pytest

from isoflop.fit import FitResult, FitSettings, fit_runs, summary_sentences
from isoflop.fit.words import incomparable_sentences

MakeRuns = Callable[..., pd.DataFrame]
SHIFTS = (-0.002, -0.001, 0.0, 0.001, 0.002)
BUDGETS = (5e12, 1e13, 2e13, 4e13)


def fitted(table: pd.DataFrame, baseline: str = "Base") -> FitResult:
    return fit_runs(
        table, settings=FitSettings(estimators=("parabola",), resamples=20), baseline=baseline
    )


@pytest.fixture(scope="module")
def table(runs: MakeRuns) -> pd.DataFrame:
    """Three variants at four budgets; Near is better at the largest only, Far everywhere."""
    parts = []
    for i, budget in enumerate(BUDGETS):
        loss = 1.2 - 0.05 * i
        near = loss - (0.02 if budget == BUDGETS[-1] else 0.0)
        variants = {"Base": {"loss": loss}, "Near": {"loss": near}, "Far": {"loss": loss - 0.04}}
        parts.append(runs(variants, budget=budget, seed_shifts=SHIFTS, paired=True))
    return pd.concat(parts, ignore_index=True)


def test_a_variant_has_its_counts_and_the_verdict_at_its_largest_budget(
    table: pd.DataFrame,
) -> None:
    fit = fitted(table)
    far, near = summary_sentences(fit)
    assert far.startswith("Far is better than Base at 4 of 4 budgets. At 4e13 FLOPs Far ")
    assert "-0.0400" in far
    assert near.startswith(
        "Near is better than Base at 1 of 4 budgets (4e13), not told apart from it at 3 "
        "(5e12, 1e13, 2e13). At 4e13 FLOPs Near "
    )
    assert "-0.0200" in near
    assert incomparable_sentences(fit) == ()
    one = table[table["budget_flops"] == BUDGETS[-1]]
    assert [line.split(" FLOPs ")[0] for line in summary_sentences(fitted(one))] == ["At 4e13"] * 2


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (
            {"Near": BUDGETS[:3], "Far": BUDGETS[1:3]},
            [
                "At 3 of 4 budgets Near cannot be compared with Base (Near has no run there).",
                "At 2 of 4 budgets Far cannot be compared with Base (Far has no run there).",
            ],
        ),
        # Where Base has no run either, nothing is left to compare.
        (
            {"Near": BUDGETS[:3], "Base": BUDGETS[:1]},
            [
                "At 5e12 FLOPs Far cannot be compared with Base (Base has no run there).",
                "At 2 of 3 budgets Near cannot be compared with Base (Near has no run there).",
            ],
        ),
    ],
)
def test_budgets_without_a_run_are_one_line(table: pd.DataFrame, gone, told: list[str]) -> None:
    for name, budgets in gone.items():
        table = table[~((table["variant"] == name) & table["budget_flops"].isin(budgets))]
    assert incomparable_sentences(fitted(table)) == tuple(told)


def test_each_reason_is_a_line(table: pd.DataFrame) -> None:
    sizes = sorted(table["parameters"].unique())
    two = table[~((table["variant"] != "Far") & (table["parameters"] > sizes[1]))]
    one_seed = two[(two["seed"] == 0) | (two["budget_flops"] < BUDGETS[-1])]
    edge = table[~((table["variant"] == "Far") & (table["parameters"] > sizes[3] * 1.01))]
    assert incomparable_sentences(fitted(two)) == (
        "At 4 of 4 budgets Near cannot be compared with Base (both have fewer than 3 sizes there).",
        "At 4 of 4 budgets Far cannot be compared with Base (Base has fewer than 3 sizes there).",
    )
    assert incomparable_sentences(fitted(edge)) == (
        "At 4 of 4 budgets Far cannot be compared with Base (Far has the lowest loss at an end "
        "of the sizes there).",
    )
    assert incomparable_sentences(fitted(one_seed))[-1] == (
        "At 4e13 FLOPs Far cannot be compared with Base (Far has one seed near the minimum, so "
        "that the noise is not known, Base has fewer than 3 sizes there)."
    )
