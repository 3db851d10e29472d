"""Which runs no figure shows, and the held-out losses of those at the lowest means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import mean

from isoflop.notation import count, scientific
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.blocks import NONE, Paragraph, Section, Text, size_of, table, variant
from isoflop.report.evidence import LeftOut


def left_out(analysis: Studied) -> Section:
    """Return the runs without a result: diverged, failed, and not there yet.

    Checks are among them, and the budget is told, where budgets are compared.
    """
    names = dict(zip(analysis.table["run_id"], analysis.table["variant"], strict=True))
    budgets = isinstance(analysis, Analysis)
    unusable = [
        LeftOut(
            variant=names.get(record.run_id, record.run_id),
            budget_flops=record.config.budget_flops or math.nan,
            size=size_of(record.config)
            + (f", {count(record.parameters.total)} parameters" if budgets else ""),
            seed=record.config.seed,
            state=record.state,
            reason=record.reason or "no reason was recorded",
        )
        for record in analysis.evidence.records
        if record.state != "finished" and (budgets or record.run_id in names)
    ]
    rows: list[dict[str, Text]] = []
    for one in [*unusable, *analysis.evidence.missing]:
        budget = NONE if math.isnan(one.budget_flops) else scientific(one.budget_flops)
        rows.append(
            {
                ".Variant": one.variant,
                **({"#Budget": budget} if budgets else {}),
                ".Size": one.size,
                "#Seed": str(one.seed),
                "State": one.state,
                "Reason": one.reason,
            }
        )
    none = Paragraph("None: every run of the study has finished.")
    return Section(
        "Runs left out", [table("Runs that no fit and no figure uses.", rows) if rows else none]
    )


def routing_decisions(analysis: Analysis) -> Section | None:
    """Return the held-out losses at each curve's lowest mean, by split and decision."""
    rows: list[dict[str, Text]] = []
    for result in analysis.budgets:
        for name in analysis.names:
            best = analysis.best(name, result.budget_flops)
            if best is None:
                continue
            runs = [analysis.records[run_id] for run_id in best.run_ids]
            tests = [run.evaluation("test") for run in runs]
            top_k = [run.evaluation("test", "top_k") for run in runs]
            validated = [run.evaluation("validation") for run in runs]
            rows.append(
                {
                    "#Budget": scientific(result.budget_flops),
                    ".Variant": variant(name),
                    "#Parameters": count(best.parameters),
                    "Causal decision": runs[0].config.model.decisions[0].replace("_", " "),
                    "#Test, causal": f"{best.loss:.4f}",
                    "#Test, top-k": _mean(one.loss for one in top_k if one),
                    "#Validation, causal": _mean(one.loss for one in validated if one),
                    "#Bits per byte": _mean(one.bits_per_byte for one in tests if one),
                    "#Seeds": str(len(runs)),
                }
            )
    if not rows:
        return None
    caption = (
        "Held-out losses at the lowest mean of each curve, over seeds. The causal test loss is the "
        "headline, fixed beforehand; top-k looks at the future and is shown for comparison."
    )
    return Section("Routing decisions", [table(caption, rows)])


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.4f}" if known else NONE
