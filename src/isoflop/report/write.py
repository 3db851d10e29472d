"""From a study's records to its figures and its page."""

from __future__ import annotations

from pathlib import Path

from isoflop import storage
from isoflop.config import Study
from isoflop.report.analysis import Analysis, analyse
from isoflop.report.evidence import RUNS, Evidence, shown
from isoflop.report.page import page
from isoflop.report.render import write_figure, write_table
from isoflop.report.scaling import ScalingAnalysis, analyse_scaling
from isoflop.report.sections import sections

PAGE = "index.html"
FIGURES = "figures"


def write_report(study: Study, evidence: Evidence, out: Path) -> Path:
    """Write figures (PNG, SVG, PDF, CSV), tables of runs and findings, one self-contained page.

    Args:
        study: what was studied: budgets, or sizes that it names.
        evidence: the records of its runs, and what else is known of them.
        out: folder for `index.html` and `figures/`; created, and files in it replaced.

    Returns:
        The path of the page.

    Raises:
        ValueError: a record belongs to no variant of the study, is listed twice, or lacks its
            loss.
        StorageError: something cannot be written.
    """
    study, evidence = shown(study, evidence)
    analysis: Analysis | ScalingAnalysis
    if study.scaling is None:
        analysis = analyse(study, evidence)
    else:
        analysis = analyse_scaling(study, evidence)
    parts, folder = sections(analysis), out / FIGURES
    drawn = [figure for section in parts for figure in section.figures()]
    stills = {one.name: write_figure(one, folder) for one in drawn}
    write_table(analysis.runs_table(), folder / f"{RUNS}.csv")
    told = {table.csv: table.data for section in parts for table in section.tables()}
    for name, data in told.items():
        if name and len(data):
            write_table(data, folder / f"{name}.csv")
    storage.write_text(out / PAGE, page(analysis, parts, stills))
    return out / PAGE
