"""Which runs no figure shows, and the held-out losses of those at the lowest means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from isoflop.config import Evaluation, RunRecord, decisions
from isoflop.notation import count, scientific
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.blocks import (
    NONE,
    Block,
    Paragraph,
    Section,
    Table,
    Text,
    columns,
    size_of,
    variant,
)
from isoflop.report.evidence import LeftOut


def left_out(analysis: Studied) -> Section:
    """Return the runs without a result: diverged, failed, and not there yet."""
    budgets = isinstance(analysis, Analysis)
    found = [*_unusable(analysis), *analysis.evidence.missing]
    block: Block = Paragraph("None: every run of the study has finished.")
    if found:
        rows: list[list[Text]] = [
            [
                one.variant,
                *([_budget(one)] if budgets else []),
                one.size,
                str(one.seed),
                one.state,
                one.reason,
            ]
            for one in found
        ]
        budget = ["#Budget"] if budgets else []
        titles = columns(".Variant", *budget, ".Size", "#Seed", "State", "Reason")
        block = Table("Runs that no fit and no figure uses.", titles, rows)
    return Section("Runs left out", [block])


def _unusable(analysis: Studied) -> list[LeftOut]:
    """Return runs with a record and without a result, checks too where budgets are compared."""
    names = dict(zip(analysis.table["run_id"], analysis.table["variant"], strict=True))
    budgets = isinstance(analysis, Analysis)
    return [
        LeftOut(
            variant=names.get(record.run_id, record.run_id),
            budget_flops=record.config.budget_flops or math.nan,
            size=_size(record, budgets),
            seed=record.config.seed,
            state=record.state,
            reason=record.reason or "no reason was recorded",
        )
        for record in analysis.evidence.records
        if record.state != "finished" and (budgets or record.run_id in names)
    ]


def _size(record: RunRecord, budgets: bool) -> str:
    counted = f", {count(record.parameters.total)} parameters" if budgets else ""
    return f"{size_of(record.config)}{counted}"


def _budget(one: LeftOut) -> str:
    return NONE if math.isnan(one.budget_flops) else scientific(one.budget_flops)


def routing_decisions(analysis: Analysis) -> Section | None:
    """Return the held-out losses at each curve's lowest mean, by split and decision."""
    rows: list[list[Text]] = []
    for result in analysis.budgets:
        for name in analysis.names:
            ladder = analysis.ladder(name, result.budget_flops)
            if not ladder:
                continue
            best = min(ladder, key=lambda size: size.loss)
            runs = [analysis.records[run_id] for run_id in best.run_ids]
            rows.append(
                [
                    scientific(result.budget_flops),
                    variant(name),
                    count(best.parameters),
                    decisions(runs[0].config.model.depth)[0].replace("_", " "),
                    f"{best.loss:.4f}",
                    _mean([run.evaluation("test", "top_k") for run in runs]),
                    _mean([run.evaluation("validation") for run in runs]),
                    _mean([run.evaluation("test") for run in runs], bits=True),
                    str(len(runs)),
                ]
            )
    if not rows:
        return None
    table = Table(
        "Held-out losses at the lowest mean of each curve, over seeds. The causal test loss is the "
        "headline, fixed beforehand; top-k looks at the future and is shown for comparison.",
        columns(
            "#Budget",
            ".Variant",
            "#Parameters",
            "Causal decision",
            "#Test, causal",
            "#Test, top-k",
            "#Validation, causal",
            "#Bits per byte",
            "#Seeds",
        ),
        rows,
    )
    return Section("Routing decisions", [table])


def _mean(evaluations: Sequence[Evaluation | None], *, bits: bool = False) -> str:
    values = [one.bits_per_byte if bits else one.loss for one in evaluations if one is not None]
    return f"{mean(values):.4f}" if values else NONE
