"""The models of a scaling study: what was trained, and at which learning rates it was checked."""

from __future__ import annotations

from itertools import groupby

from isoflop.notation import count, percent, scientific
from isoflop.report.blocks import NONE, Block, Section, Table, Text, columns, size_of, variant
from isoflop.report.scaling import AXES, ScalingAnalysis, compute_of, sparsity
from isoflop.report.sections.checks import scaling_table
from isoflop.report.sections.scaling.compute import AXIS_SHORT


def section(analysis: ScalingAnalysis) -> Section | None:
    """Return the sizes that were trained, and the learning rates tried; None without either."""
    rows = model_rows(analysis)
    per_byte = ["#Bits per byte"] * (analysis.bits_per_nat is not None)
    blocks: list[Block] = [_table(rows, per_byte)] if rows else []
    if analysis.rates:
        blocks.append(scaling_table(analysis))
    return Section("Models", blocks) if blocks else None


def model_rows(analysis: ScalingAnalysis) -> list[list[Text]]:
    """Return every size of every variant that has a finished run."""
    rows: list[list[Text]] = []
    runs, nat = analysis.finished, analysis.bits_per_nat
    for (name, _), found in groupby(runs, lambda one: (one[0], size_of(one[1].config))):
        same = [record for _, record in found]
        first = same[0]
        config = first.config
        share = sparsity(config.model, config.data.sequence_length)
        losses = [one.loss for record in same if (one := record.evaluation("test"))]
        rows.append(
            [
                variant(name),
                f"{config.model.blocks} \N{MULTIPLICATION SIGN} {config.model.width}",
                count(first.parameters.non_embedding),
                count(config.tokens),
                f"{config.tokens_per_step:,}",
                f"{config.steps:,}",
                f"{config.recipe.learning_rate:.3g}",
                *(scientific(compute_of(first, axis), 3, trim=False) for axis in AXES),
                percent(share) if share else "full",
                str(len(same)),
                f"{sum(losses) / len(losses):.4f}" if losses else NONE,
                *([f"{sum(losses) / len(losses) * nat:.4f}" if losses else NONE] if nat else ()),
            ]
        )
    return rows


def _table(rows: list[list[Text]], per_byte: list[str]) -> Table:
    blank = ("", 1)
    rest = [blank] * (3 + len(per_byte))
    return Table(
        "What was trained: blocks \u00d7 width, the same for every variant. N is without "
        "embeddings, D the tokens of a run; sparsity is the share of a window that a query does "
        "not attend, 1 - top_k B / T; the rate is that of the recipe at its reference shape; the "
        "loss is the mean over seeds on the test split.",
        columns(
            *(".Variant", "#Shape", "#N", "#D", "#a step", "#Steps", "#Rate"),
            *(f"#{AXIS_SHORT[axis]}" for axis in AXES),
            *("#Sparsity", "#Seeds", "#Loss", *per_byte),
        ),
        rows,
        groups=[*[blank] * 3, ("Tokens", 2), *[blank] * 2, ("PFLOP/s-days", 2), *rest],
    )
