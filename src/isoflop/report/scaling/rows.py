"""The rows of a scaling page's tables, every cell as the text that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from isoflop.estimate import Estimate
from isoflop.fit.spans.values import PFLOPS_DAY
from isoflop.notation import count, percent, scientific
from isoflop.report.provenance import LeftOut
from isoflop.report.rows import NONE, Row, rate_trials, size_of
from isoflop.report.scaling.analysis import AXES, ScalingAnalysis
from isoflop.report.scaling.published import PublishedLines
from isoflop.report.scaling.tables import sparsity


def coefficient_rows(analysis: ScalingAnalysis) -> list[Row]:
    """Return a and b of every span and variant on both axes, or why there are none."""
    rows: list[Row] = []
    for span, name in analysis.short_names.items():
        for variant in analysis.study.variants:
            found = [analysis.projection(variant.name, span, axis) for axis in AXES]
            if all(one is None for one in found):
                continue
            residuals = [one.log_residual for one in found if one and one.log_residual is not None]
            rows.append(
                {
                    "span": name,
                    "variant": variant.name,
                    "cells": [
                        {"message": one.message if one else "not fitted", "a": None}
                        if one is None or one.a is None or one.b is None
                        else {
                            "a": _interval(one.a, ".3f"),
                            "b": _interval(one.b, ".4f"),
                        }
                        for one in found
                    ],
                    "residual": percent(residuals[0], 2) if residuals else NONE,
                }
            )
    return rows


def gap_rows(analysis: ScalingAnalysis) -> list[Row]:
    """Return each variant's gap in every span, the mean over sizes, with what it rests on."""
    rows: list[Row] = []
    for variant in analysis.challengers:
        for span, name in analysis.short_names.items():
            one = analysis.gap(variant, span)
            if one is None:
                continue
            gap = one.difference
            rows.append(
                {
                    "span": name,
                    "variant": variant,
                    "gap": f"{gap.value:+.4f}" if gap else None,
                    "interval": gap.interval_words("+.4f") if gap else None,
                    "reason": one.reason,
                    "seed_error": _error(one.seed_error),
                    "document_error": _error(one.document_error),
                    "outcome": one.outcome,
                    "style": {"equivalent": "held", "better": "held", "worse": "not-held"}.get(
                        one.outcome, "unresolved"
                    ),
                    "p": NONE if one.p_equivalent is None else _p_value(one.p_equivalent),
                    "pairs": one.pairs,
                    "documents": one.documents,
                    "windows": one.windows,
                }
            )
    return rows


def model_rows(analysis: ScalingAnalysis) -> list[Row]:
    """Return every size of every variant that has a finished run."""
    rows: list[Row] = []
    runs = [(name, record) for name, record in analysis.finished()]
    for (variant, size), found in groupby(runs, lambda one: (one[0], size_of(one[1].config))):
        same = [record for _, record in found]
        first = same[0]
        config = first.config
        share = sparsity(config.model, config.data.sequence_length)
        losses = [one.loss for record in same if (one := record.evaluation("test"))]
        rows.append(
            {
                "variant": variant,
                "size": size,
                "shape": f"{config.model.blocks} \N{MULTIPLICATION SIGN} {config.model.width}",
                "non_embedding": count(first.parameters.non_embedding),
                "tokens": count(config.tokens),
                "steps": f"{config.steps:,}",
                "batch": f"{config.tokens_per_step:,}",
                "rate": f"{config.recipe.learning_rate:.3g}",
                "compute": [
                    scientific(first.train_flops[a] / PFLOPS_DAY, 3, trim=False) for a in AXES
                ],
                "sparsity": percent(share) if share else "full",
                "loss": f"{sum(losses) / len(losses):.4f}" if losses else NONE,
                "seeds": len(same),
            }
        )
    return rows


def check_rows(analysis: ScalingAnalysis) -> list[Row]:
    """Return a row per learning-rate check, the lowest loss marked."""
    order = [variant.name for variant in analysis.study.variants]
    sizes = {record.parameters.total: record for record in analysis.records.values()}
    return [
        {
            "variant": one.variant,
            "size": size_of(sizes[one.parameters].config),
            "trials": rate_trials(one),
            "seeds": one.seeds,
            "interior": "yes" if one.interior else "no",
        }
        for one in sorted(analysis.rates, key=lambda one: order.index(one.variant))
    ]


def published_rows(published: PublishedLines | None) -> list[Row]:
    """Return the published coefficients beside ours from the same curves."""
    if published is None:
        return []
    table = published.coefficients.sort_values("order", kind="stable")
    return [
        {
            "panel": row["panel"],
            "attention": row["attention"],
            "cells": [
                format(row[column], form)
                for column, form in (
                    ("a", ".3f"),
                    ("refit_a", ".3f"),
                    ("b", ".3f"),
                    ("refit_b", ".4f"),
                )
            ],
            "apart": percent(row["apart"], 2),
        }
        for row in table.to_dict("records")
    ]


def left_out_rows(analysis: ScalingAnalysis, missing: Sequence[LeftOut]) -> list[Row]:
    """Return the runs without a result: diverged, failed, and not there yet."""
    unusable = analysis.table[analysis.table["state"] != "finished"]
    rows: list[Row] = []
    for row in unusable.to_dict("records"):
        record = analysis.records[row["run_id"]]
        rows.append(
            {
                "variant": row["variant"],
                "size": size_of(record.config),
                "seed": record.config.seed,
                "state": record.state,
                "reason": record.reason or "no reason was recorded",
            }
        )
    return rows + [
        {
            "variant": one.variant,
            "size": one.size,
            "seed": one.seed,
            "state": one.state,
            "reason": one.reason,
        }
        for one in missing
    ]


def _interval(one: Estimate, form: str) -> dict[str, str]:
    return {"value": format(one.value, form), "ends": one.interval_words(form)}


def _error(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
