"""What tests of the report make from the synthetic studies: an analysis, a page, its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import synthetic_scaling

from isoflop.config import RunRecord, Study
from isoflop.report import BenchRow, Evidence
from isoflop.report.analysis import Analysis, Studied, analyse
from isoflop.report.blocks import Table
from isoflop.report.figure import Absent, Figure
from isoflop.report.page import page
from isoflop.report.scaling import ScalingAnalysis, analyse_scaling
from isoflop.report.sections import sections

Runs = Sequence[tuple[str, float, RunRecord]]
QUICK = ("parabola", "akima")
"""The surfaces take seconds to fit, and most of a report treats them as any other estimator."""


def evidence_of(runs: Runs, **known) -> Evidence:
    names = {record.run_id: variant for variant, _, record in runs}
    return Evidence(records=[record for *_, record in runs], variant_of=names, **known)


def analysed(study: Study, runs: Runs, estimators=QUICK, **known) -> Analysis:
    return analyse(study, evidence_of(runs, **known), estimators)


def scaling_evidence(study: Study, **options) -> Evidence:
    records, names = synthetic_scaling.joined(synthetic_scaling.runs(study, **options))
    beside, checks = synthetic_scaling.joined(synthetic_scaling.checks(study))
    return Evidence(records=[*records, *beside], variant_of=names, checks=checks)


def analysed_scaling(study: Study, **options) -> ScalingAnalysis:
    return analyse_scaling(study, scaling_evidence(study, **options))


def told(analysis, **known):
    """Return an analysis of which more is known."""
    return replace(analysis, evidence=replace(analysis.evidence, **known))


def figures_of(analysis: Studied) -> dict[str, Figure]:
    """Return the figures of a study's page by name, in their order."""
    return {one.name: one for part in sections(analysis) for one in part.figures()}


def absent_of(analysis: Studied) -> dict[str, str]:
    """Return what the page says is missing, by title."""
    found = {}
    for part in sections(analysis):
        for block in part.blocks:
            for one in getattr(block, "panels", (block,)):
                if isinstance(one, Absent):
                    found[one.title] = one.text
    return found


def table_of(analysis: Studied, caption: str) -> Table:
    """Return the table of a study's page whose caption starts so."""
    tables = [one for part in sections(analysis) for one in part.tables()]
    return next(one for one in tables if one.caption.startswith(caption))


def html_of(analysis: Analysis | ScalingAnalysis, **known) -> str:
    """Return a page without stills and without the libraries, which hold any text."""
    analysis = told(analysis, command="isoflop report x", **known)
    parts = sections(analysis)
    stills = {one.name: "<svg/>" for part in parts for one in part.figures()}
    with mock.patch("isoflop.report.page.vega_javascript", return_value="/* vega */"):
        return page(analysis, parts, stills)


def bench_rows(runs: Runs) -> list[BenchRow]:
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
