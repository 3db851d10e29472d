from __future__ import annotations

import pandas as pd
import pytest
import synthetic_scaling
import synthetic_study as synthetic
from made_reports import analysed, analysed_scaling, bench_rows

from isoflop.config import Study
from isoflop.report import PublishedScaling
from isoflop.report.analysis import Analysis
from isoflop.report.figures import StudyFigures, study_figures
from isoflop.report.scaling_analysis import ScalingAnalysis


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


@pytest.fixture(scope="session")
def published() -> PublishedScaling:
    lines, fits = [], []
    for order, panel in enumerate(("30k-32k", "0k-2k")):
        for attention, a in (("MoBA", 2.6), ("Full attention", 2.5)):
            for curve in range(5):
                lines += [
                    (panel, order, attention, curve, x * 2**curve, a * (x * 2**curve) ** -0.1 + up)
                    for x, up in ((0.1, 2.5), (0.3, 0.4), (0.6, 0.1), (0.9, 0.05), (1.0, 0.0))
                ]
            fits += [
                (panel, order, attention, -1, x, a * x**b, kind)
                for kind, b in (("published", -0.1), ("refit", -0.09))
                for x in (0.1, 30.0)
            ]
    columns = ["panel", "order", "attention", "curve", "compute", "loss", "kind"]
    coefficients = pd.DataFrame(
        [
            ("30k-32k", 0, "MoBA", 2.6, -0.1, 2.7, -0.09),
            ("0k-2k", 1, "MoBA", 2.6, -0.1, None, None),
        ],
        columns=["panel", "order", "attention", "a", "b", "refit_a", "refit_b"],
    )
    drawn = [(*line, "curve") for line in lines]
    return PublishedScaling(pd.DataFrame([*drawn, *fits], columns=columns), coefficients)
