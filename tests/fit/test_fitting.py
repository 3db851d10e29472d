"""Whole tables, fit by fit: hostile ones get a sensible answer or a clear message."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from known_surfaces import TRUE, along_budgets, noisy

from isoflop.fit import FitResult, FitSettings, VariantFit, fit_runs, run_table
from isoflop.fit.curves.minima import minima
from isoflop.fit.surfaces import bootstrap
from isoflop.fit.surfaces.surface import Surface

LARGE = Surface(E=1.4, A=3e5, B=8e4, alpha=0.45, beta=0.35)


def rows(
    surface: Surface = TRUE,
    budgets: tuple[float, ...] = (1e18, 1e19, 1e20),
    noise: float = 0.003,
    seeds: int = 2,
) -> pd.DataFrame:
    """Return seven sizes about the optimum of each budget."""
    n, d, _ = (np.repeat(column, seeds) for column in along_budgets(surface, budgets))
    n, d, loss = noisy(surface, n, d, noise)
    columns = {"parameters": n, "tokens": d, "loss": loss, "seed": np.arange(len(n)) % seeds}
    return pd.DataFrame({**columns, "budget_flops": np.repeat(budgets, 7 * seeds)})


def fitted(table: pd.DataFrame, **options: object) -> FitResult:
    return fit_runs(run_table(table).table, FitSettings(resamples=30, **options))


@pytest.fixture(scope="module")
def plain() -> VariantFit:
    return fitted(rows()).variants["all runs"]


def test_the_minima_of_a_fit_are_those_of_the_curves() -> None:
    table = run_table(rows()).table
    result = fit_runs(table, settings=FitSettings(resamples=20))
    found = result.minima
    again = FitResult.model_validate_json(result.model_dump_json()).minima
    assert [one.variant for one in again] == [one.variant for one in found]
    assert {one.variant for one in found} == {"all runs"}
    assert {one.interval is None for one in found} == {False}
    assert tuple(one.model_copy(update={"interval": None}) for one in found) == minima(table)
    small = table[table["parameters"] < 5e8]
    beside = table.assign(variant="beside", on_ladder=False)
    assert set(fit_runs(pd.concat([table, beside]), FitSettings(resamples=20)).variants) == {
        "all runs"
    }
    edge = fit_runs(small, settings=FitSettings(estimators=("parabola",), resamples=20)).minima
    assert "larger" in {one.side for one in edge}


def test_bad_rows_change_nothing_but_are_counted() -> None:
    clean = rows()
    bad = clean.iloc[:6].assign(
        loss=[np.inf, -2.0, np.nan, 0.0, 3.0, 3.0],
        tokens=[1e9, 1e9, 1e9, 1e9, np.nan, -1.0],
        seed=9,
    )
    mixed = pd.concat([clean, bad, clean.iloc[:3]], ignore_index=True)
    assert sum(one.rows for one in run_table(mixed).left_out) == 9
    table = run_table(clean).table
    table.loc[3, "loss"] = np.nan
    with pytest.raises(ValueError, match="loss of row 4 is"):
        fit_runs(table)
    some = {"estimators": ("parabola", "variable_projection")}
    assert fitted(mixed, **some).variants == fitted(clean, **some).variants


def test_numbers_of_the_largest_runs_keep_their_precision() -> None:
    table = rows(LARGE, (1e25, 1e26, 1e27), noise=0.0, seeds=1)
    fit = fitted(table, estimators=("surface", "variable_projection")).variants["all runs"]
    for surface in (fit.surface, fit.variable_projection):
        for name, value in LARGE.model_dump().items():
            assert getattr(surface, name).value == pytest.approx(value, rel=1e-6), name
    sizes = [one.parameters for one in fit.minima if one.estimator == "surface"]
    assert all(1e10 < size < 1e13 for size in sizes)


@pytest.mark.parametrize("unit", [1e-12, 1e25])
def test_the_unit_of_the_loss_changes_nothing_else(plain: VariantFit, unit: float) -> None:
    scaled = fitted(rows().assign(loss=rows()["loss"] * unit)).variants["all runs"]
    for one, other in zip(plain.minima, scaled.minima, strict=True):
        assert other.parameters == pytest.approx(one.parameters, rel=1e-5)
        assert other.loss == pytest.approx(one.loss * unit, rel=1e-6)
    assert scaled.surface.alpha.value == pytest.approx(plain.surface.alpha.value, rel=1e-6)
    assert scaled.surface.E.low == pytest.approx(plain.surface.E.low * unit, rel=1e-4)


def test_an_outlier_moves_neither_hubers_surface_nor_its_intervals_far(plain: VariantFit) -> None:
    table = rows()
    table.loc[5, "loss"] *= 1e6
    spoilt = fitted(table, estimators=("surface",)).variants["all runs"].surface
    for name in ("E", "alpha", "beta"):
        one, other = getattr(plain.surface, name), getattr(spoilt, name)
        assert one.low < other.value < one.high, name
        assert other.high - other.low < 2 * (one.high - one.low), name
        low, high = plain.surface.profiles[name].ends
        spoilt_low, spoilt_high = spoilt.profiles[name].ends
        assert spoilt_high - spoilt_low < 2 * (high - low), name


@pytest.mark.parametrize(
    ("table", "statuses"),
    [
        (rows().iloc[:1], {"too_few"}),
        (rows().iloc[:4], {"too_few"}),
        (rows().assign(loss=2.0), {"edge", "at_bound"}),
        (rows(seeds=1).assign(loss=lambda t: np.log(t["parameters"])), {"edge", "at_bound"}),
    ],
    ids=["one run", "two sizes", "one loss", "larger is worse"],
)
def test_a_table_that_tells_nothing_is_refused_by_every_estimator(table, statuses) -> None:
    fit = fitted(table).variants["all runs"]
    assert {one.status for one in fit.minima} <= statuses
    assert {one.loss for one in fit.minima} == {None}
    assert all(one.message for one in fit.minima)


def random_table(count: int) -> pd.DataFrame:
    """Return runs at random compute and size, every one of its own."""
    generator = np.random.default_rng(0)
    budget = np.exp(generator.uniform(np.log(1e18), np.log(1e21), count))
    n = np.sqrt(budget / 120) * np.exp(generator.normal(0, 0.7, count))
    noise = np.exp(0.01 * generator.standard_normal(count))
    loss = TRUE.loss(n, budget / 6 / n) * noise
    return pd.DataFrame({"budget_flops": budget, "parameters": n, "loss": loss})


def test_more_rows_than_are_drawn_take_the_limit_and_say_so(monkeypatch) -> None:
    monkeypatch.setattr(bootstrap, "BOOTSTRAP_RUNS", 300)
    table = run_table(random_table(301)).table
    fit = fit_runs(table, settings=FitSettings(estimators=("surface",), resamples=100)).variants[
        "all runs"
    ]
    assert (fit.surface.status, fit.surface.source) == ("converged", "limit")
    assert fit.surface.E.low < TRUE.E < fit.surface.E.high
    assert {one.interval.source for one in fit.minima if one.interval} == {"limit"}


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_less_than_a_minute_and_two_gigabytes(tmp_path) -> None:
    path = tmp_path / "runs.csv"
    random_table(100_000).to_csv(path)
    measured = (
        "import resource, sys; from isoflop.cli import main; main(['fit', sys.argv[1], '--json']); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        "print(used.ru_utime, used.ru_maxrss, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", measured, str(path)], capture_output=True, text=True, check=True
    )
    seconds, kilobytes = (float(one) for one in ended.stderr.split())
    assert seconds < 60
    assert kilobytes < 2e6
    surface = json.loads(ended.stdout)["variants"]["all runs"]["surface"]
    assert surface["source"] == "limit"
    for name, value in TRUE.model_dump().items():
        found = surface[name]
        assert found["low"] < value < found["high"], name
        assert found["high"] / found["low"] < 1.2, name
