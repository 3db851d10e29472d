"""Which runs no figure shows, held-out losses at the lowest means, models of a scaling study."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from isoflop.config import Evaluation
from isoflop.notation import count, percent, scientific
from isoflop.report import blocks
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.evidence import LeftOut
from isoflop.report.scaling import AXES, AXIS_SHORT, ScalingAnalysis, compute_of, sparsity
from isoflop.report.sections.checks import rates_table
from isoflop.report.words.prose import caption


def left_out(analysis: Studied) -> blocks.Section:
    """Return the runs without a result: diverged, failed, and not there yet.

    Checks are among them, and the budget is told, where budgets are compared.
    """
    names = {**analysis.evidence.checks, **analysis.evidence.variant_of}
    budgets = isinstance(analysis, Analysis)
    found = [
        LeftOut(
            variant=names[run.run_id],
            budget_flops=run.config.budget_flops or 0.0,
            size=blocks.size_of(run.config)
            + (f", {count(run.parameters.total)} parameters" if budgets else ""),
            seed=run.config.seed,
            state=run.state,
            reason=run.reason or "no reason was recorded",
        )
        for run in analysis.evidence.records
        if run.state != "finished" and (budgets or run.run_id not in analysis.evidence.checks)
    ]
    rows: list[blocks.Row] = [
        {
            ".Variant": one.variant,
            **({"#Budget": scientific(one.budget_flops)} if budgets else {}),
            ".Size": one.size,
            "#Seed": str(one.seed),
            "State": one.state,
            "Reason": one.reason,
        }
        for one in (*found, *analysis.evidence.missing)
    ]
    none = blocks.Paragraph("None: every run of the study has finished.")
    return blocks.Section(
        "Runs left out",
        [blocks.table("Runs that no fit and no figure uses.", rows) if rows else none],
    )


def routing_decisions(analysis: Analysis) -> blocks.Section | None:
    """Return the held-out losses at each curve's lowest mean, by split and decision."""
    rows: list[blocks.Row] = []
    for result in analysis.budgets:
        for name in analysis.names:
            best = analysis.best(name, result.budget_flops)
            if best is None:
                continue
            runs = [analysis.records[run_id] for run_id in best.run_ids]
            tests = [run.evaluation("test") for run in runs]
            rows.append(
                {
                    "#Budget": scientific(result.budget_flops),
                    ".Variant": blocks.variant(name),
                    "#Parameters": count(best.parameters),
                    "Causal decision": runs[0].config.model.decisions[0].replace("_", " "),
                    "#Test, causal": f"{best.loss:.4f}",
                    "#Test, top-k": _mean([run.evaluation("test", "top_k") for run in runs]),
                    "#Validation, causal": _mean([run.evaluation("validation") for run in runs]),
                    "#Bits per byte": _mean(tests, "bits_per_byte"),
                    "#Seeds": str(len(runs)),
                }
            )
    if not rows:
        return None
    return blocks.Section("Routing decisions", [blocks.table(caption("held_out"), rows)])


def _mean(found: Sequence[Evaluation | None], what: str = "loss") -> str:
    values = [getattr(one, what) for one in found if one is not None]
    known = [value for value in values if value is not None]
    return blocks.number(fmean(known) if known else None)


def models(analysis: ScalingAnalysis) -> blocks.Section | None:
    """Return the sizes that were trained, and the learning rates tried; None without either."""
    rows = model_rows(analysis)
    parts = [blocks.table(caption("models"), rows)] if rows else []
    if analysis.rates:
        parts.append(rates_table(analysis, "at one size"))
    return blocks.Section("Models", parts) if parts else None


def model_rows(analysis: ScalingAnalysis) -> list[blocks.Row]:
    """Return every size of every variant that has a finished run."""
    rows: list[blocks.Row] = []
    nat = analysis.bits_per_nat
    each = groupby(analysis.finished, lambda one: (one[0], blocks.size_of(one[1].config)))
    for (name, _), found in each:
        same = [record for _, record in found]
        first, config = same[0], same[0].config
        share = sparsity(config.model, config.data.sequence_length)
        losses = [one.loss for record in same if (one := record.evaluation("test"))]
        loss = fmean(losses) if losses else None
        computes = {f"PFLOP/s-days|#{AXIS_SHORT[axis]}": compute_of(first, axis) for axis in AXES}
        rows.append(
            {
                ".Variant": blocks.variant(name),
                "#Shape": f"{config.model.blocks} \N{MULTIPLICATION SIGN} {config.model.width}",
                "#N": count(first.parameters.non_embedding),
                "Tokens|#D": count(config.tokens),
                "Tokens|#a step": f"{config.tokens_per_step:,}",
                "#Steps": f"{config.steps:,}",
                "#Rate": f"{config.recipe.learning_rate:.3g}",
                **{title: scientific(one, 3, trim=False) for title, one in computes.items()},
                "#Sparsity": percent(share) if share else "full",
                "#Seeds": str(len(same)),
                "#Loss": blocks.number(loss),
                **({"#Bits per byte": blocks.number(loss and loss * nat)} if nat else {}),
            }
        )
    return rows
