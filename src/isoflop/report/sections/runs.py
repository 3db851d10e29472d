"""Which runs no figure shows, and the held-out losses of those at the lowest means."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from isoflop.config import Evaluation
from isoflop.notation import count, scientific
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.blocks import Paragraph, Row, Section, number, size_of, table, variant


def left_out(analysis: Studied) -> Section:
    """Return the runs without a result: diverged, failed, and not there yet.

    Checks are among them, and the budget is told, where budgets are compared.
    """
    names = dict(zip(analysis.table["run_id"], analysis.table["variant"], strict=True))
    budgets = isinstance(analysis, Analysis)
    found: list[tuple[str, float | None, str, int, str, str]] = []
    for run in analysis.evidence.records:
        if run.state != "finished" and (budgets or run.run_id in names):
            size = size_of(run.config)
            size += f", {count(run.parameters.total)} parameters" if budgets else ""
            reason = run.reason or "no reason was recorded"
            name, of = names.get(run.run_id, run.run_id), run.config
            found.append((name, of.budget_flops, size, of.seed, run.state, reason))
    found += [
        (one.variant, one.budget_flops, one.size, one.seed, one.state, one.reason)
        for one in analysis.evidence.missing
    ]
    rows: list[Row] = [
        {
            ".Variant": name,
            **({"#Budget": number(budget, scientific)} if budgets else {}),
            ".Size": size,
            "#Seed": str(seed),
            "State": state,
            "Reason": reason,
        }
        for name, budget, size, seed, state, reason in found
    ]
    none = Paragraph("None: every run of the study has finished.")
    return Section(
        "Runs left out", [table("Runs that no fit and no figure uses.", rows) if rows else none]
    )


def routing_decisions(analysis: Analysis) -> Section | None:
    """Return the held-out losses at each curve's lowest mean, by split and decision."""
    rows: list[Row] = []
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
                    ".Variant": variant(name),
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
    caption = (
        "Held-out losses at the lowest mean of each curve, over seeds. The causal test loss is the "
        "headline, fixed beforehand; top-k looks at the future and is shown for comparison."
    )
    return Section("Routing decisions", [table(caption, rows)])


def _mean(found: Sequence[Evaluation | None], what: str = "loss") -> str:
    values = [getattr(one, what) for one in found if one is not None]
    known = [value for value in values if value is not None]
    return number(fmean(known) if known else None)
