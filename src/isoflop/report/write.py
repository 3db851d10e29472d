"""From a study's records to its figures and its page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isoflop import storage
from isoflop.config import PrecisionChoice, RunRecord, Study
from isoflop.report.analysis import analyse
from isoflop.report.disclosure import Evidence, RecipeSearch
from isoflop.report.figures import study_figures
from isoflop.report.fit_tables import RUNS
from isoflop.report.page import Source, page
from isoflop.report.provenance import LeftOut
from isoflop.report.registration import Registration
from isoflop.report.render import write_figure, write_table
from isoflop.report.result_tables import write_result_tables
from isoflop.report.routed import RoutedModel
from isoflop.report.speeds import BenchRow
from isoflop.text import visible

PAGE = "index.html"
FIGURES = "figures"


def write_report(
    study: Study,
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    out: Path,
    *,
    off_ladder: Collection[str] = (),
    checks: Mapping[str, str] | None = None,
    missing: Sequence[LeftOut] = (),
    speeds: Sequence[BenchRow] = (),
    registered: Sequence[Registration] = (),
    search: RecipeSearch | None = None,
    routed: RoutedModel | None = None,
    train_tokens: int | None = None,
    precision: PrecisionChoice | None = None,
    command: str | None = None,
) -> Path:
    """Write figures (PNG, SVG, PDF, CSV), tables of runs and findings, one self-contained page.

    Args:
        study: what was studied.
        records: outcomes of its runs; diverged and failed ones are listed, not fitted.
        variant_of: name of the variant of each run id.
        out: folder for `index.html` and `figures/`; created, and files in it replaced.
        off_ladder: run ids of shapes that are not of their variant's own ladder.
        checks: name of the variant of each run that checks a minimum; no fit uses it.
        missing: runs that have no record yet.
        speeds: rows of `isoflop bench train`; without them nothing is said about wall-clock.
        registered: predictions that were written down before their budget was trained.
        search: how many trials the recipe was chosen from; None where that is not known.
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
    beside = checks or {}
    shown = shown_names(study, {**variant_of, **beside})
    study = shown_study(study, shown)
    measured = [row.model_copy(update={"variant": visible(row.variant)}) for row in speeds]
    names = {run_id: shown[name] for run_id, name in variant_of.items()}
    shown_checks = {run_id: shown[name] for run_id, name in beside.items()}
    analysis = analyse(study, records, names, off_ladder, checks=shown_checks)
    inside = routed and replace(routed, variant=visible(routed.variant))
    figures = study_figures(analysis, measured, inside)
    stills = {one.name: write_figure(one, out / FIGURES) for one in figures.all()}
    source = Source(
        evidence=Evidence(
            records=records,
            missing=[replace(one, variant=visible(one.variant)) for one in missing],
            search=search and _shown_search(search, shown),
            train_tokens=train_tokens,
            precision=precision,
            runs_sha256=write_table(analysis.table, out / FIGURES / f"{RUNS}.csv"),
        ),
        speeds=measured,
        command=command or f"isoflop report {study.name}.toml",
        registered=[_shown_registration(one, shown) for one in registered],
        routed=inside,
    )
    write_result_tables(analysis, source.registered, out / FIGURES)
    storage.write_text(out / PAGE, page(analysis, figures, stills, source))
    return out / PAGE


def shown_names(study: Study, variant_of: Mapping[str, str]) -> dict[str, str]:
    """Return the names of a study's variants as they are safe to draw and to print.

    Raises:
        ValueError: a run belongs to no variant of the study.
    """
    shown = {variant.name: visible(variant.name) for variant in study.variants}
    unknown = sorted(set(variant_of.values()) - set(shown))
    if unknown:
        raise ValueError(f"a run belongs to variant {unknown[0]!r}; expected one of {list(shown)}")
    return shown


def _shown_search(search: RecipeSearch, shown: Mapping[str, str]) -> RecipeSearch:
    return replace(
        search,
        declared={shown[name]: number for name, number in search.declared.items()},
        finished={shown[name]: number for name, number in search.finished.items()},
    )


def _shown_registration(one: Registration, shown: Mapping[str, str]) -> Registration:
    predictions = tuple(
        made.model_copy(update={"variant": shown.get(made.variant, visible(made.variant))})
        for made in one.predictions
    )
    return one.model_copy(update={"study": visible(one.study), "predictions": predictions})


def shown_study(study: Study, shown: Mapping[str, str]) -> Study:
    """Return `study` with its variants under the names that are safe to draw and to print."""
    return study.model_copy(
        update={
            "variants": tuple(
                variant.model_copy(update={"name": shown[variant.name]})
                for variant in study.variants
            ),
            "baseline": study.baseline and shown[study.baseline],
            "challenger": study.challenger and shown[study.challenger],
        }
    )
