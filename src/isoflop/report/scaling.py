"""A scaling study's records, fitted: everything its figures, tables and words are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from isoflop.config import BlockAttention, ModelConfig, RunRecord, Study
from isoflop.estimate import LEVEL
from isoflop.fit import ScalingFit, fit_scaling, frame
from isoflop.fit.checks import rate_checks
from isoflop.fit.spans.values import PFLOPS_DAY, Axis, Projection, SpanGap
from isoflop.report.analysis import Studied
from isoflop.report.evidence import Evidence

Span = tuple[int, int]

AXES: tuple[Axis, ...] = ("6nd", "causal")
AXIS_LABELS: Mapping[str, str] = {"6nd": "6ND (as published)", "causal": "exact FLOPs"}
AXIS_SHORT: Mapping[str, str] = {"6nd": "6ND", "causal": "exact"}


@dataclass(frozen=True, kw_only=True)
class ScalingAnalysis(Studied):
    """A scaling study and what its finished runs show."""

    kind = "scaling"
    fit: ScalingFit | None
    """None while no run of the baseline has finished."""

    @property
    def level(self) -> float:
        """Share of intervals that hold the true value."""
        return LEVEL if self.fit is None else self.fit.level

    @property
    def spans(self) -> tuple[Span, ...]:
        """Ranges of positions in order, the whole window, its trailing part."""
        return () if self.fit is None else self.fit.spans

    @property
    def ranges(self) -> tuple[Span, ...]:
        """The equal ranges of positions among the spans."""
        positions = self.study.positions
        if positions is None:
            return ()
        cut = positions.spans(self.study.data.sequence_length)[: positions.ranges]
        return tuple(span for span in self.spans if span in cut)

    @cached_property
    def span_names(self) -> dict[Span, str]:
        """The spans in words, in their order."""
        window, names = self.study.data.sequence_length, {}
        for start, stop in self.spans:
            names[start, stop] = f"positions {start}\N{EN DASH}{stop - 1}"
            if stop == window and (start, stop) not in self.ranges:
                names[start, stop] = f"last {stop - start}" if start else "all positions"
        return names

    @property
    def short_names(self) -> dict[Span, str]:
        """The same where it is clear that positions are meant."""
        return {
            span: name.removeprefix("positions ").removesuffix(" positions")
            for span, name in self.span_names.items()
        }

    @property
    def challengers(self) -> tuple[str, ...]:
        """The variants but for the baseline, in the study's order."""
        return tuple(name for name in self.names if name != self.baseline)

    @cached_property
    def finished(self) -> tuple[tuple[str, RunRecord], ...]:
        """Variant and record of each finished run that is fitted, in the study's order."""
        done = self.table[self.table["state"] == "finished"]
        done = done.assign(place=done["variant"].map(self.names.index))
        done = done.sort_values(["place", "non_embedding", "seed"], kind="stable")
        records = [self.records[run_id] for run_id in done["run_id"]]
        return tuple(zip(done["variant"], records, strict=True))

    def projection(self, variant: str, span: Span, axis: Axis) -> Projection | None:
        """Return a variant's fit in a span, refused ones included."""
        found = self.fit.projections if self.fit else ()
        wanted = (variant, *span, axis)
        return next((p for p in found if (p.variant, p.start, p.stop, p.axis) == wanted), None)

    def gap(self, variant: str, span: Span) -> SpanGap | None:
        """Return a variant's gap to the baseline in a span, the mean over sizes."""
        means = (one for one in (self.fit.gaps if self.fit else ()) if one.non_embedding is None)
        wanted = (variant, *span)
        return next((one for one in means if (one.variant, one.start, one.stop) == wanted), None)

    def runs_table(self) -> pd.DataFrame:
        """Return every run with its size, tokens, compute, recipe and test losses by span.

        Columns: those of `isoflop.fit.frame` but for the ones about routing and budgets, then
        `compute_6nd` and `compute_exact` (PFLOP/s-days), `steps`, `tokens_per_step`,
        `learning_rate`, `attention_sparsity`, and a `loss_START_STOP` per span.
        """
        dropped = ["on_ladder", "budget_flops", "forward_flops", "top_k_loss"]
        extra = []
        for record in (self.records[run_id] for run_id in self.table["run_id"]):
            config = record.config
            told: dict[str, object] = {
                "compute_6nd": compute_of(record, "6nd"),
                "compute_exact": compute_of(record, "causal"),
                "steps": config.steps,
                "tokens_per_step": config.tokens_per_step,
                "learning_rate": config.recipe.learning_rate,
                "attention_sparsity": sparsity(config.model, config.data.sequence_length),
            }
            told |= {f"loss_{a}_{b}": final_loss(record, (a, b)) for a, b in self.spans}
            extra.append(told)
        return pd.concat([super().runs_table().drop(columns=dropped), pd.DataFrame(extra)], axis=1)


def analyse_scaling(study: Study, evidence: Evidence) -> ScalingAnalysis:
    """Fit the records of a scaling study.

    Raises:
        ValueError: a record that belongs to no variant, is listed twice, or lacks its loss.
    """
    own = [record for record in evidence.records if record.run_id not in evidence.checks]
    names, baseline = evidence.variant_of, study.baseline_variant.name
    table = frame(own, names)
    fit = None
    if any(names[one.run_id] == baseline for one in own if one.state == "finished"):
        fit = fit_scaling(own, names, baseline=baseline, margin=study.equivalence_margin)
    rates = rate_checks(evidence.records, {**names, **evidence.checks}, study.learning_rate)
    order = [variant.name for variant in study.variants]
    return ScalingAnalysis(
        study=study,
        evidence=evidence,
        table=table,
        records={record.run_id: record for record in evidence.records},
        fit=fit,
        rates=tuple(sorted(rates, key=lambda one: order.index(one.variant))),
    )


def compute_of(record: RunRecord, axis: Axis) -> float:
    """Return the compute of a whole run in PFLOP/s-days."""
    return record.train_flops[axis] / PFLOPS_DAY


def final_loss(record: RunRecord, span: Span) -> float | None:
    """Return the test loss of a run in a span, None where it was not measured."""
    found = record.evaluation("test")
    spans = found.spans if found else ()
    return next((round(one.loss, 5) for one in spans if (one.start, one.stop) == span), None)


def sparsity(model: ModelConfig, sequence_length: int) -> float:
    """Return the share of a window that a query does not attend, 1 - top_k B / T; 0 where full."""
    attention = model.attention
    if not isinstance(attention, BlockAttention) or attention.ends_full:
        return 0.0
    return max(0.0, 1 - attention.top_k * attention.block_size / sequence_length)
