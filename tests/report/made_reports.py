"""What the tests of the report make from the synthetic studies: an analysis, a page, speeds."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import synthetic_scaling

from isoflop.config import RunRecord, Study
from isoflop.report.analysis import Analysis, analyse
from isoflop.report.disclosure import Evidence
from isoflop.report.figures import StudyFigures, study_figures
from isoflop.report.page import Source, page
from isoflop.report.provenance import LeftOut
from isoflop.report.registration import Registration
from isoflop.report.routed import RoutedModel
from isoflop.report.scaling.analysis import ScalingAnalysis, analyse_scaling
from isoflop.report.speeds import BenchRow


def analysed(study: Study, runs: Sequence[tuple[str, float, RunRecord]], **options) -> Analysis:
    names = {record.run_id: variant for variant, _, record in runs}
    records = [record for _, _, record in runs]
    # The surfaces take seconds to fit, and most of a report treats them as any other estimator.
    options = {"estimators": ("parabola", "akima"), **options}
    return analyse(study, records, names, **options)


def analysed_scaling(study: Study, **options) -> ScalingAnalysis:
    records, names = synthetic_scaling.joined(synthetic_scaling.runs(study, **options))
    beside, checks = synthetic_scaling.joined(synthetic_scaling.checks(study))
    return analyse_scaling(study, [*records, *beside], names, checks)


def html_of(
    analysis: Analysis,
    records: Sequence[RunRecord],
    *,
    missing: Sequence[LeftOut] = (),
    speeds: Sequence[BenchRow] = (),
    routed: RoutedModel | None = None,
    registered: Sequence[Registration] = (),
    figures: StudyFigures | None = None,
) -> str:
    """Return a page without stills and without the libraries, which hold any text."""
    figures = figures or study_figures(analysis, speeds, routed)
    stills = {one.name: "<svg/>" for one in figures.all()}
    evidence = Evidence(records=records, missing=missing)
    source = Source(
        evidence, speeds, command="isoflop report x", registered=registered, routed=routed
    )
    with mock.patch("isoflop.report.page.vega_javascript", return_value="/* vega */"):
        return page(analysis, figures, stills, source)


def bench_rows(runs: Sequence[tuple[str, float, RunRecord]]) -> list[BenchRow]:
    """Return a measured speed of 2e10 FLOP/s for every model."""
    return [
        BenchRow(
            variant=variant,
            parameters=record.parameters.total,
            flops_per_step=(flops := record.train_flops["causal"] / record.config.steps),
            steps_per_second=2e10 / flops,
        )
        for variant, _, record in runs
    ]
