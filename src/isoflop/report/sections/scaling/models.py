"""The models of a scaling study: what was trained, and at which learning rates it was checked."""

from __future__ import annotations

from itertools import groupby
from statistics import fmean

from isoflop.notation import count, percent, scientific
from isoflop.report import blocks
from isoflop.report.scaling import AXES, ScalingAnalysis, compute_of, sparsity
from isoflop.report.sections.checks import rates_table
from isoflop.report.sections.scaling.compute import AXIS_SHORT


def section(analysis: ScalingAnalysis) -> blocks.Section | None:
    """Return the sizes that were trained, and the learning rates tried; None without either."""
    caption = (
        "What was trained: blocks \u00d7 width, the same for every variant. N is without "
        "embeddings, D the tokens of a run; sparsity is the share of a window that a query does "
        "not attend, 1 - top_k B / T; the rate is that of the recipe at its reference shape; the "
        "loss is the mean over seeds on the test split."
    )
    rows = model_rows(analysis)
    parts = [blocks.table(caption, rows)] if rows else []
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
