"""Any exact law: what says `converged` is within its stated error of the truth.

Runs follow a law of published range without noise, at sizes that may lie off the optimum and at
compute that may lie off the budget. Every interval holds its own estimate, whatever was fitted.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from known_surfaces import SIX_ND, table_of

from isoflop.fit import ESTIMATORS, FitResult, FitSettings, fit_runs
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.surface import Surface, compute_exponents, surface_optima

RESAMPLES = 20


@st.composite
def laws(draw: st.DrawFn) -> Surface:
    """Draw a law by its floor, exponents, and the size and excess loss of its optimum at 1e19."""
    alpha, beta = (draw(st.floats(0.25, 0.6)) for _ in range(2))
    size, excess = draw(st.floats(1e8, 8e8)), draw(st.floats(0.5, 1.5))
    # At the optimum alpha A / N^alpha is beta B / D^beta, and their sum is the excess loss.
    a = excess * beta / (alpha + beta) * size**alpha
    b = excess * alpha / (alpha + beta) * (1e19 / 6 / size) ** beta
    return Surface(E=draw(st.floats(1.2, 2.2)), A=a, B=b, alpha=alpha, beta=beta)


@st.composite
def designs(draw: st.DrawFn) -> pd.DataFrame:
    """Draw a law, and the table of runs of a study of it; the law stands in `attrs`."""
    law = draw(laws())
    budgets, sizes = draw(st.integers(1, 6)), draw(st.integers(5, 9))
    factor, shift = draw(st.floats(1.3, 2.0)), draw(st.floats(0.5, 2.0))
    jitter = draw(st.sampled_from([0.0, 1e-3, 0.01, 0.03, 0.1]))
    generator = np.random.default_rng(draw(st.integers(0, 2**20)))
    budget = 1e18 * draw(st.floats(2.5, 5.0)) ** np.arange(budgets)
    best = np.exp([surface_optima([law.row], c, SIX_ND)[0][0] for c in budget])
    n = best[:, None] * shift * factor ** (np.arange(sizes) - (sizes - 1) / 2)
    own = budget[:, None] * np.exp(generator.uniform(-jitter, jitter, n.shape))
    n, own, budget = n.ravel(), own.ravel(), budget.repeat(sizes)
    table = table_of((n, own / 6 / n, law.loss(n, own / 6 / n)), seed=np.arange(len(n)))
    table = table.assign(budget_flops=budget, training_flops=own)
    table.attrs["law"] = law
    return table


def assert_every_interval_holds_its_estimate(result: FitResult) -> None:
    for fit in result.variants.values():
        for one in fit.minima:
            if one.interval is not None:
                assert one.interval.low <= one.loss <= one.interval.high, one
                low, high = one.interval.parameters_low, one.interval.parameters_high
                assert low <= one.parameters <= high, one
        coefficients = [law.a for law in fit.laws if law.a is not None]
        for surface in (fit.surface, fit.variable_projection):
            names = ("E", "A", "B", "alpha", "beta", "a", "b") if surface else ()
            coefficients += [one for one in (getattr(surface, name) for name in names) if one]
        for one in coefficients:
            assert one.low is None or one.low <= one.value, one
            assert one.high is None or one.value <= one.high, one


WITHOUT_HUBER = tuple(one for one in ESTIMATORS if one != "surface")


@pytest.mark.parametrize(
    ("estimators", "examples"),
    [
        (WITHOUT_HUBER, 6),
        (ESTIMATORS, 2),
        pytest.param(WITHOUT_HUBER, 80, marks=pytest.mark.slow),
        pytest.param(ESTIMATORS, 20, marks=pytest.mark.slow),
    ],
    ids=["few", "few with Huber", "many", "many with Huber"],
)
def test_what_converged_is_within_its_stated_error_of_an_exact_law(
    estimators: tuple[Estimator, ...], examples: int
) -> None:
    @given(designs())
    @settings(max_examples=examples, deadline=None, derandomize=True, phases=[Phase.generate])
    def holds(table: pd.DataFrame) -> None:
        assert_within_stated_errors(table, estimators)

    holds()


def assert_within_stated_errors(table: pd.DataFrame, estimators: tuple[Estimator, ...]) -> None:
    law: Surface = table.attrs["law"]
    result = fit_runs(table, settings=FitSettings(estimators=estimators, resamples=RESAMPLES))
    assert_every_interval_holds_its_estimate(result)
    fit = result.variants["all runs"]
    for one in fit.minima:
        if one.status != "converged":
            continue
        log_n, loss = (float(at[0]) for at in surface_optima([law.row], one.budget_flops, SIX_ND))
        low = high = one.loss
        small = large = one.parameters
        if one.estimator in ("parabola", "akima"):
            assert one.interval is not None, one
            low, high = one.interval.low, one.interval.high
            small, large = one.interval.parameters_low, one.interval.parameters_high
        assert low - 1e-6 <= loss <= high + 1e-6, (one, loss)
        assert small * (1 - 1e-4) <= math.exp(log_n) <= large * (1 + 1e-4), (one, math.exp(log_n))
    true_a = float(compute_exponents(law.alpha, law.beta)[0])
    for one in fit.laws:
        if one.status == "converged":
            low = high = one.a.value
            if one.estimator in ("parabola", "akima"):
                low, high = one.a.low, one.a.high
            assert low - 1e-5 <= true_a <= high + 1e-5, (one, true_a)
