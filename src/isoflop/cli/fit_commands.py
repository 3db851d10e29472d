"""The subcommands on runs of a study or of any table: fits and predictions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from isoflop.cli.fit_options import FitOptions
from isoflop.cli.options import RUNS
from isoflop.config.problems import quoted


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
    from isoflop.cli.fit_details import fit_details
    from isoflop.cli.fitting import runs_to_fit, scaling_study
    from isoflop.cli.scaling import fit_scaling_study, scaling_answer, scaling_tables
    from isoflop.cli.tables import show, show_json
    from isoflop.fit import fit_runs

    scaled = scaling_study(options.runs)
    if scaled is not None:
        fitted = fit_scaling_study(
            scaled,
            RUNS / scaled.name,
            options.results,
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
        baseline=baseline,
        margin=margin,
        delta=options.delta,
        level=options.level,
        resamples=options.resamples,
        seed=options.seed,
        cluster=None if cluster is None else "cluster",
        curves=found.curves,
        loss_unit=found.loss_unit,
    )
    if options.json:
        show_json(result.model_dump(mode="json"))
    elif details:
        show(fit_details(result, found))
    else:
        show([fit_answer(result, found)])


def predict(
    options: Annotated[FitOptions, arg(name="")],
    budget: Annotated[float, arg(metavar="FLOPS", help="Training FLOPs to predict for.")],
    register: Annotated[
        Path | None, arg(metavar="FILE", help="Write the prediction there, before it is trained.")
    ] = None,
) -> None:
    """Predict the optimal size, tokens and loss at a budget that is not trained yet."""
    from isoflop.cli.fitting import runs_to_fit
    from isoflop.cli.predicting import prediction_tables, predictions
    from isoflop.cli.tables import show, show_json
    from isoflop.report.registration import register as write_down

    found, study = runs_to_fit(options, RUNS)
    made, tested = predictions(found, budget, options)
    if register is not None:
        write_down(register, study.name if study else options.runs.name, found.table, made)
        print(quoted(f"wrote {register}"), file=sys.stderr)
    if options.json:
        show_json(
            {
                "predictions": [one.model_dump(mode="json") for one in made],
                "leave_largest_out": [one.model_dump(mode="json") for one in tested],
            }
        )
    else:
        show(prediction_tables(made, tested, options.level))
