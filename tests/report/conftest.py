from __future__ import annotations

import pytest
import synthetic_scaling
import synthetic_study as synthetic
from made_reports import analysed, analysed_scaling, bench_rows

from isoflop.config import Study
from isoflop.report.analysis import Analysis
from isoflop.report.figures import StudyFigures, study_figures
from isoflop.report.scaling.analysis import ScalingAnalysis


@pytest.fixture
def without_vega(monkeypatch):
    """Leave the libraries out of the page: they take seconds to bundle, and hold any text."""
    monkeypatch.setattr("isoflop.report.page.vega_javascript", lambda: "/* vega */")


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
    return analysed(study, runs)


@pytest.fixture(scope="session")
def figures(analysis, runs) -> StudyFigures:
    return study_figures(analysis, bench_rows(runs))


@pytest.fixture(scope="session")
def scaling_study() -> Study:
    return synthetic_scaling.study()


@pytest.fixture(scope="session")
def scaling(scaling_study) -> ScalingAnalysis:
    return analysed_scaling(scaling_study)
