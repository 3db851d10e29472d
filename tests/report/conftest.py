from __future__ import annotations

from unittest import mock

import pytest
import synthetic_scaling
import synthetic_study as synthetic
from made_reports import analysed, analysed_scaling, bench_rows

from isoflop.config import Study
from isoflop.fit import FitSettings, predict
from isoflop.fit.predictions import Prediction
from isoflop.report.analysis import Analysis
from isoflop.report.scaling import ScalingAnalysis


@pytest.fixture
def without_vega(monkeypatch):
    """Leave the libraries out of the page: they take seconds to bundle, and hold any text."""
    monkeypatch.setattr("isoflop.report.page.vega_javascript", lambda: "/* vega */")


@pytest.fixture
def without_pictures(monkeypatch, without_vega):
    """Draw nothing: what is looked at are words and tables."""
    drawn = {"vegalite_to_svg.return_value": "<svg/>", "svg_to_png.return_value": b"png"}
    nothing = mock.Mock(**drawn, **{"svg_to_pdf.return_value": b"pdf"})
    monkeypatch.setattr("isoflop.report.render.vl_convert", nothing)


@pytest.fixture(scope="session")
def study() -> Study:
    return synthetic.study(variants=synthetic.VARIANTS)


@pytest.fixture(scope="session")
def runs(study):
    return synthetic.runs(study)


@pytest.fixture(scope="session")
def records(runs):
    return [record for _, _, record in runs]


@pytest.fixture(scope="session")
def analysis(study, runs) -> Analysis:
    return analysed(study, runs, speeds=bench_rows(runs))


@pytest.fixture(scope="session")
def pair() -> Analysis:
    """Return the baseline and its challenger alone."""
    study = synthetic.study(variants=synthetic.VARIANTS[:2])
    return analysed(study, synthetic.runs(study))


@pytest.fixture(scope="session")
def tilted(study) -> Analysis:
    """Return runs whose losses fall to the last size, so that every minimum is refused."""
    return analysed(study, synthetic.runs(study, slope=0.5, noise=0))


@pytest.fixture(scope="session")
def bumped() -> Analysis:
    """Runs on their variants' surfaces, but for a baseline in the middle of the second budget."""
    study = synthetic.study((5e12, 4e13), (0,), synthetic.VARIANTS[:2])
    runs = synthetic.runs(study, noise=0)
    at = next(i for i, (_, budget, _) in enumerate(runs) if budget == 4e13) + 3
    variant, budget, record = runs[at]
    runs[at] = (variant, budget, synthetic.worse(record, synthetic.BUMP))
    return analysed(study, runs, estimators=("parabola", "akima", "surface"))


@pytest.fixture(scope="session")
def three_budgets() -> Study:
    return synthetic.study((5e12, 2e13, 8e13), (0, 1), synthetic.VARIANTS[:2])


@pytest.fixture(scope="session")
def all_budgets(three_budgets: Study) -> Analysis:
    return analysed(three_budgets, synthetic.runs(three_budgets))


@pytest.fixture(scope="session")
def two_budgets(three_budgets: Study) -> Analysis:
    runs = synthetic.runs(three_budgets)
    return analysed(three_budgets, [one for one in runs if one[1] < 8e13])


@pytest.fixture(scope="session")
def predicted(two_budgets: Analysis) -> tuple[Prediction, ...]:
    """Return what the two smaller budgets foretell of the largest."""
    return predict(two_budgets.table, 8e13, settings=FitSettings(resamples=20))


@pytest.fixture(scope="session")
def scaling_study() -> Study:
    return synthetic_scaling.study()


@pytest.fixture(scope="session")
def scaling(scaling_study) -> ScalingAnalysis:
    return analysed_scaling(scaling_study)
