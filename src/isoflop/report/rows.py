"""The rows of the page's tables, every cell as the text that is shown."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from statistics import mean
from typing import Any

import pandas as pd

from isoflop.config import Evaluation, RunConfig, RunRecord, decisions
from isoflop.estimate import estimate_words
from isoflop.fit import ESTIMATOR_NAMES
from isoflop.fit.checks import RateCheck
from isoflop.fit.claims import Claim
from isoflop.fit.numbered import NumberedModel
from isoflop.fit.predictions.optima import Miss, Prediction, misses
from isoflop.fit.results import MinimumInterval
from isoflop.notation import count, scientific, significant
from isoflop.reference import mod_figures
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.provenance import LeftOut
from isoflop.report.registration import Registration
from isoflop.report.speeds import BenchRow
from isoflop.report.tables import model_costs

NONE = "\N{EN DASH}"
"""What stands for a number that there is none of."""

ESTIMATOR_WORDS = {name: words[0].upper() + words[1:] for name, words in ESTIMATOR_NAMES.items()}

WAY_WORDS = {
    "minima": "power laws of minima",
    "surface": ESTIMATOR_NAMES["surface"],
    "variable_projection": ESTIMATOR_NAMES["variable_projection"],
}
"""How a prediction was made."""

Row = dict[str, object]


def minima_rows(analysis: Analysis) -> list[Row]:
    """Return a row per budget and variant with the minimum by each estimator."""
    rows: list[Row] = []
    for result in analysis.budgets:
        for variant in analysis.study.variants:
            found = [result.minima.get((variant.name, name)) for name in analysis.estimators]
            cells = [
                {
                    "loss": f"{one.minimum.loss:.4f}" if one.minimum.loss is not None else None,
                    "interval": _interval(
                        result.intervals.get((one.variant, one.minimum.estimator))
                    ),
                    "parameters": count(one.minimum.parameters or 0.0),
                    "status": one.minimum.status.replace("_", " "),
                    "message": one.minimum.message,
                }
                for one in found
                if one is not None
            ]
            if not cells:
                continue
            first = found[0]
            forward = first.forward_flops if first else None
            rows.append(
                {
                    "at": scientific(result.budget_flops),
                    "variant": variant.name,
                    "cells": cells,
                    "forward": NONE if forward is None else scientific(forward, 3, trim=False),
                }
            )
    return rows


def claim_rows(claims: Sequence[Claim], *, doubted: bool) -> list[Row]:
    """Return a row per claim; the verdict stands in a column of its own, so not in the sentence.

    With `doubted` no verdict is stated, only the numbers.
    """
    return [
        {
            "statement": _capitalised(claim.statement),
            "verdict": "no verdict" if doubted else claim.verdict,
            "style": "unresolved" if doubted else claim.verdict.replace(" ", "-"),
            "numbers": _capitalised(claim.sentence.removeprefix(f"{claim.verdict.capitalize()}: ")),
        }
        for claim in claims
    ]


def model_rows(analysis: Analysis, result: BudgetResult, speeds: Sequence[BenchRow]) -> list[Row]:
    """Return the numbered models of Figure 3's rules, then of Figure 4's."""
    rows: list[Row] = []
    for rule, models in (("Figure 3", result.figure3), ("Figure 4", result.figure4)):
        costs = {
            row["number"]: row for row in model_costs(analysis, models, speeds).to_dict("records")
        }
        rows += [_model_row(rule, one, costs.get(one.number)) for one in models]
    return rows


def ratio_rows(costs: pd.DataFrame) -> list[list[str]]:
    """Return size and costs of Figure 3's models over model 1's, ours beside the published.

    `costs` is as `tables.model_costs` makes it.
    """
    if costs.empty or 1 not in set(costs["number"]):
        return []
    ours = costs.set_index("number")
    published = {model.number: model for model in mod_figures().figure3.models}
    first = published[1]
    rows = []
    for number in ours.index:
        theirs = published[number]
        cells = [str(number)]
        for column, ratio in (
            ("parameters", theirs.parameters / first.parameters),
            ("flops_per_step", theirs.flops_per_step / first.flops_per_step),
            ("steps_per_second", theirs.steps_per_second / first.steps_per_second),
        ):
            here = ours.loc[number, column] / ours.loc[1, column]
            cells += [NONE if pd.isna(here) else f"{here:.2f}", f"{ratio:.2f}"]
        rows.append(cells)
    return rows


def decision_rows(analysis: Analysis) -> list[Row]:
    """Return the held-out losses at each curve's lowest mean, by split and decision."""
    rows: list[Row] = []
    for result in analysis.budgets:
        for variant in analysis.study.variants:
            ladder = [
                size for size in analysis.sizes(variant.name, result.budget_flops) if size.on_ladder
            ]
            if not ladder:
                continue
            best = min(ladder, key=lambda size: size.loss)
            runs = [analysis.records[run_id] for run_id in best.run_ids]
            headline = decisions(runs[0].config.model.depth)[0]
            rows.append(
                {
                    "at": scientific(result.budget_flops),
                    "variant": variant.name,
                    "parameters": count(best.parameters),
                    "decision": headline.replace("_", " "),
                    "loss": f"{best.loss:.4f}",
                    "top_k": _mean([run.evaluation("test", "top_k") for run in runs]),
                    "validation": _mean([run.evaluation("validation") for run in runs]),
                    "bits": _mean([run.evaluation("test") for run in runs], bits=True),
                    "seeds": len(runs),
                }
            )
    return rows


def rate_rows(analysis: Analysis) -> list[Row]:
    """Return a row per learning-rate check, the lowest loss marked."""
    return [
        {
            "at": scientific(one.budget_flops),
            "variant": one.variant,
            "parameters": count(one.parameters),
            "trials": rate_trials(one),
            "seeds": one.seeds,
            "interior": "yes" if one.interior else "no",
        }
        for one in analysis.rates
    ]


def rate_trials(check: RateCheck) -> list[Row]:
    """Return what a check found at each learning rate, the lowest loss marked."""
    return [
        {
            "rate": f"{rate:.3g}",
            "loss": "diverged" if loss is None else f"{loss:.4f}",
            "best": rate == check.best,
            "used": rate == check.used,
            "above": "" if apart is None else apart.words("+.4f"),
        }
        for rate, loss, apart in zip(check.rates, check.losses, check.above_best, strict=True)
    ]


def component_rows(analysis: Analysis) -> list[Row]:
    """Return a row per model whose seeds were crossed with data orders."""
    return [
        {
            "at": scientific(one.budget_flops),
            "variant": one.variant,
            "parameters": count(one.parameters),
            "seed": f"{one.seed:.4f}",
            "order": f"{one.order:.4f}",
            "rest": f"{one.rest:.4f}",
            "runs": f"{one.seeds} \N{MULTIPLICATION SIGN} {one.orders}",
        }
        for one in analysis.components
    ]


def prediction_rows(analysis: Analysis, registered: Sequence[Registration]) -> list[Row]:
    """Return a row per registered prediction, with the miss where its budget has been trained."""
    return [
        {
            "at": scientific(one.budget_flops),
            "variant": made.variant,
            "way": WAY_WORDS[made.way],
            "parameters": estimate_words(made.parameters, count, NONE),
            "loss": estimate_words(made.loss, none=NONE),
            "measured": "not trained yet"
            if miss is None
            else f"{miss.loss:.4f} at {count(miss.parameters)}",
            "error": NONE if miss is None or miss.loss_error is None else f"{miss.loss_error:+.4f}",
        }
        for one, made, miss in beside_measured(analysis, registered)
    ]


def registration_rows(registered: Sequence[Registration]) -> list[Row]:
    """Return a row per file of registered predictions: from what it was made, and its hash."""
    return [
        {
            "at": scientific(one.budget_flops),
            "study": one.study,
            "runs": f"{one.runs:,}",
            "sha256": one.sha256,
        }
        for one in registered
    ]


def beside_measured(
    analysis: Analysis, registered: Sequence[Registration]
) -> Iterator[tuple[Registration, Prediction, Miss | None]]:
    """Yield registered predictions of the study's variants, with the miss where there is one."""
    names = {variant.name for variant in analysis.study.variants}
    for one in registered:
        missed = {
            (miss.prediction.variant, miss.prediction.way): miss
            for miss in misses(analysis.table, one.predictions)
        }
        for made in one.predictions:
            if made.variant in names:
                yield one, made, missed.get((made.variant, made.way))


def left_out_rows(
    analysis: Analysis, records: Sequence[RunRecord], missing: Sequence[LeftOut]
) -> list[Row]:
    """Return the runs without a result: diverged, failed, and not there yet."""
    names = dict(zip(analysis.table["run_id"], analysis.table["variant"], strict=True))
    unusable = [
        LeftOut(
            variant=names.get(record.run_id, record.run_id),
            budget_flops=record.config.budget_flops or math.nan,
            size=f"{size_of(record.config)}, {count(record.parameters.total)} parameters",
            seed=record.config.seed,
            state=record.state,
            reason=record.reason or "no reason was recorded",
        )
        for record in records
        if record.state != "finished"
    ]
    return [
        {
            "variant": one.variant,
            "at": NONE if math.isnan(one.budget_flops) else scientific(one.budget_flops),
            "size": one.size,
            "seed": one.seed,
            "state": one.state,
            "reason": one.reason,
        }
        for one in (*unusable, *missing)
    ]


def size_of(config: RunConfig) -> str:
    """Return the shape of a model in words."""
    return f"{config.model.blocks} blocks of width {config.model.width}"


def _model_row(rule: str, one: NumberedModel, cost: dict[Hashable, Any] | None) -> Row:
    row: Row = {"rule": rule, "number": one.number, "reason": one.reason}
    if one.model is None or cost is None:
        return row
    speed = cost["steps_per_second"]
    return row | {
        "variant": one.model.variant,
        "parameters": count(one.model.parameters),
        "shape": f"{one.model.blocks} \N{MULTIPLICATION SIGN} {one.model.width}",
        "loss": f"{one.model.loss:.4f}",
        "forward": scientific(one.model.forward_flops, 3, trim=False),
        "flops_per_step": scientific(cost["flops_per_step"], 3, trim=False),
        "speed": "not measured" if math.isnan(speed) else significant(speed),
    }


def _interval(found: MinimumInterval | None) -> str:
    return "" if found is None else f"[{found.low:.4f}, {found.high:.4f}]"


def _mean(evaluations: Sequence[Evaluation | None], *, bits: bool = False) -> str:
    values = [one.bits_per_byte if bits else one.loss for one in evaluations if one is not None]
    return f"{mean(values):.4f}" if values else NONE


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
