"""The subcommands on runs of a study or of any table: fits and predictions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from isoflop.cli.fit_options import FitOptions
from isoflop.cli.options import RUNS
from isoflop.text import quoted


def fit(
    options: Annotated[FitOptions, arg(name="")],
    baseline: Annotated[
        str | None, arg(metavar="VARIANT", help="Whom the others are held against.")
    ] = None,
    margin: Annotated[
        float | None, arg(metavar="LOSS", help="Difference of loss that counts as none.")
    ] = None,
    cluster: Annotated[
        str | None,
        arg(metavar="COLUMN", help="Runs that share its value share noise, which surfaces heed."),
    ] = None,
    details: Annotated[
        bool, arg(help="Print every estimator, surface and interval, not only the answer.")
    ] = False,
) -> None:
    """Fit loss against size and tokens, with intervals, and compare variants."""
    from isoflop.cli.fit_answer import fit_answer
    from isoflop.cli.fit_details import fit_details, fit_warnings
    from isoflop.cli.fitting import runs_to_fit, said_json, scaling_study
    from isoflop.cli.scaling import fit_scaling_study, scaling_answer, scaling_tables
    from isoflop.cli.tables import show, show_json
    from isoflop.fit import fit_runs

    scaled = scaling_study(options.runs)
    if scaled is not None:
        fitted = fit_scaling_study(
            scaled,
            RUNS / scaled.name,
            options.results,
            options.runs,
            baseline=baseline,
            margin=margin,
            level=options.level,
        )
        if options.json:
            show_json(fitted.model_dump(mode="json"))
        elif details:
            show(scaling_tables(fitted, scaled.data.loss_unit))
        else:
            show([scaling_answer(fitted, scaled.data.loss_unit)])
        return
    found, study = runs_to_fit(options, RUNS, cluster=cluster)
    names = found.table["variant"].drop_duplicates().tolist()
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    if study is not None:
        baseline = baseline or study.baseline_variant.name
        margin = margin or study.equivalence_margin
    result = fit_runs(
        found.table,
        options.settings(margin=margin, cluster=None if cluster is None else "cluster"),
        baseline=baseline,
        curves=found.curves,
        loss_unit=found.loss_unit,
    )
    if options.json:
        told = {**said_json(found), "warnings": fit_warnings(result, found)}
        show_json({**result.model_dump(mode="json"), **told})
    elif details:
        show(fit_details(result, found))
    else:
        show([fit_answer(result, found)])


def predict(
    options: Annotated[FitOptions, arg(name="")],
    budget: Annotated[
        float | None, arg(metavar="FLOPS", help="Training FLOPs to predict the optimum at.")
    ] = None,
    parameters: Annotated[
        float | None, arg(metavar="N", help="Size to predict the loss of, with --tokens.")
    ] = None,
    tokens: Annotated[
        float | None, arg(metavar="D", help="Training tokens of a model of that size.")
    ] = None,
    register: Annotated[
        Path | None, arg(metavar="FILE", help="Write the prediction there, before it is trained.")
    ] = None,
) -> None:
    """Predict the optimum at a budget not trained yet, or the loss of a size and tokens."""
    from isoflop.cli.fitting import runs_to_fit, said_json, said_lines
    from isoflop.cli.predicting import (
        asked_for,
        point_json,
        point_lines,
        points,
        prediction_json,
        prediction_tables,
        predictions,
    )
    from isoflop.cli.tables import show, show_json
    from isoflop.report.registration import check_unregistered
    from isoflop.report.registration import register as write_down

    where = asked_for(budget, parameters, tokens)
    if isinstance(where, tuple):
        if register is not None:
            raise ValueError("--register writes down an optimum; expected --budget with it")
        found, study = runs_to_fit(options, RUNS)
        baseline = None if study is None else study.baseline_variant.name
        at = points(found, where, options, baseline)
        if options.json:
            show_json({**point_json(at), **said_json(found)})
        else:
            show(said_lines(found))
            show(point_lines(at, options.level, found.loss_unit))
        return
    found, study = runs_to_fit(options, RUNS)
    if register is not None:
        check_unregistered(register, found.table, where)
    made, tested = predictions(found, where, options)
    if register is not None:
        write_down(register, study.name if study else options.runs.name, found.table, made)
        print(quoted(f"wrote {register}"), file=sys.stderr)
    if options.json:
        show_json({**prediction_json(made, tested), **said_json(found)})
    else:
        show(said_lines(found))
        show(prediction_tables(made, tested, options.level))
