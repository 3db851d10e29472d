"""From a scaling study's records to its figures and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isoflop import storage
from isoflop.config import PrecisionChoice, RunRecord, Study
from isoflop.report.disclosure import Evidence
from isoflop.report.fit_tables import RUNS
from isoflop.report.provenance import LeftOut
from isoflop.report.render import write_figure, write_table
from isoflop.report.result_tables import learning_rates, write_found
from isoflop.report.routed import RoutedModel
from isoflop.report.scaling.analysis import analyse_scaling
from isoflop.report.scaling.page import ScalingSource, scaling_page
from isoflop.report.scaling.panels import scaling_figures
from isoflop.report.scaling.published import PublishedLines
from isoflop.report.scaling.tables import all_runs
from isoflop.report.write import FIGURES, PAGE, shown_names, shown_study
from isoflop.text import visible


def write_scaling_report(
    study: Study,
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    out: Path,
    *,
    checks: Mapping[str, str] | None = None,
    missing: Sequence[LeftOut] = (),
    published: PublishedLines | None = None,
    routed: RoutedModel | None = None,
    train_tokens: int | None = None,
    precision: PrecisionChoice | None = None,
    command: str | None = None,
) -> Path:
    """Write figures (PNG, SVG, PDF, CSV), a table of all runs and one self-contained page.

    Args:
        study: what was studied, with its sizes named.
        records: outcomes of its runs; diverged and failed ones are listed, not fitted.
        variant_of: name of the variant of each run id.
        out: folder for `index.html` and `figures/`; created, and files in it replaced.
        checks: name of the variant of each run at another learning rate; no fit uses it.
        missing: runs that have no record yet.
        published: the published curves and coefficients; None leaves them out.
        routed: the routed model to look into (see `routed_model`); None for none.
        train_tokens: size of the training split; None where the corpus is not at hand.
        precision: what the precision was chosen by; None where the study's file names it.
        command: what makes this page again, for the reader.

    Returns:
        The path of the page.

    Raises:
        ValueError: a record belongs to no variant of the study, is listed twice, or lacks its
            loss.
        StorageError: something cannot be written.
    """
    shown = shown_names(study, {**variant_of, **(checks or {})})
    analysis = analyse_scaling(
        shown_study(study, shown),
        records,
        {run_id: shown[name] for run_id, name in variant_of.items()},
        {run_id: shown[name] for run_id, name in (checks or {}).items()},
    )
    inside = routed and replace(routed, variant=visible(routed.variant))
    figures = scaling_figures(analysis, published, inside)
    stills = {one.name: write_figure(one, out / FIGURES) for one in figures.all()}
    evidence = Evidence(
        records=records,
        missing=[replace(one, variant=visible(one.variant)) for one in missing],
        train_tokens=train_tokens,
        precision=precision,
        runs_sha256=write_table(all_runs(analysis), out / FIGURES / f"{RUNS}.csv"),
    )
    source = ScalingSource(
        evidence, published, command or f"isoflop report {study.name}.toml", inside
    )
    write_found(learning_rates(analysis.rates), out / FIGURES / "learning-rates.csv")
    storage.write_text(out / PAGE, scaling_page(analysis, figures, stills, source))
    return out / PAGE
