"""A scaling study's records, fitted: everything its figures, tables and words are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from isoflop.config import RunRecord, Study
from isoflop.estimate import LEVEL
from isoflop.fit import ScalingFit, fit_scaling, frame
from isoflop.fit.checks import RateCheck, rate_checks
from isoflop.fit.spans.values import PFLOPS_DAY, Axis, Projection, SpanGap

Span = tuple[int, int]

AXES: tuple[Axis, ...] = ("6nd", "causal")


@dataclass(frozen=True)
class ScalingAnalysis:
    """A scaling study and what its finished runs show."""

    study: Study
    table: pd.DataFrame
    """As `isoflop.fit.frame` makes it, checks left out."""
    records: Mapping[str, RunRecord]
    """By run id, checks included."""
    fit: ScalingFit | None
    """None while no run of the baseline has finished."""
    rates: tuple[RateCheck, ...]
    """Other learning rates tried at one of the sizes."""

    @property
    def baseline(self) -> str:
        """Name of the variant the others are measured against."""
        return self.study.baseline_variant.name

    @property
    def loss_unit(self) -> str:
        """What losses are in."""
        return self.study.data.loss_unit

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

    @property
    def names(self) -> dict[Span, str]:
        """The spans in words, in their order."""
        return {span: self._name(span) for span in self.spans}

    @property
    def short_names(self) -> dict[Span, str]:
        """The same where it is clear that positions are meant."""
        return {
            span: name.removeprefix("positions ").removesuffix(" positions")
            for span, name in self.names.items()
        }

    def finished(self) -> Iterator[tuple[str, RunRecord]]:
        """Yield variant and record of each finished run that is fitted, in the study's order."""
        done = self.table[self.table["state"] == "finished"]
        for variant in self.study.variants:
            own = done[done["variant"] == variant.name].sort_values(["non_embedding", "seed"])
            for run_id in own["run_id"]:
                yield variant.name, self.records[run_id]

    def projection(self, variant: str, span: Span, axis: Axis) -> Projection | None:
        """Return a variant's fit in a span, refused ones included."""
        found = self.fit.projections if self.fit else ()
        return next(
            (
                one
                for one in found
                if (one.variant, one.start, one.stop, one.axis) == (variant, *span, axis)
            ),
            None,
        )

    def gap(self, variant: str, span: Span) -> SpanGap | None:
        """Return a variant's gap to the baseline in a span, the mean over sizes."""
        found = self.fit.gaps if self.fit else ()
        return next(
            (
                one
                for one in found
                if one.non_embedding is None
                and (one.variant, one.start, one.stop) == (variant, *span)
            ),
            None,
        )

    @property
    def challengers(self) -> tuple[str, ...]:
        """The variants but for the baseline, in the study's order."""
        return tuple(v.name for v in self.study.variants if v.name != self.baseline)

    def _name(self, span: Span) -> str:
        start, stop = span
        window = self.study.data.sequence_length
        if span == (0, window):
            return "all positions"
        if stop == window and span not in self.ranges:
            return f"last {stop - start}"
        return f"positions {start}\N{EN DASH}{stop - 1}"


def analyse_scaling(
    study: Study,
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    checks: Mapping[str, str] | None = None,
) -> ScalingAnalysis:
    """Fit what `records` hold.

    Args:
        study: what was studied.
        records: outcomes of its runs.
        variant_of: name of the variant of each run id.
        checks: the same of runs at other learning rates; no fit uses them.

    Raises:
        ValueError: a record that belongs to no variant, is listed twice, or lacks its loss.
    """
    beside = checks or {}
    own = [record for record in records if record.run_id not in beside]
    table = frame(own, variant_of)
    done = {variant_of[record.run_id] for record in own if record.state == "finished"}
    fit = None
    if study.baseline_variant.name in done:
        fit = fit_scaling(
            own,
            variant_of,
            baseline=study.baseline_variant.name,
            margin=study.equivalence_margin,
        )
    return ScalingAnalysis(
        study,
        table,
        {record.run_id: record for record in records},
        fit,
        rate_checks(records, {**variant_of, **beside}, study.learning_rates()),
    )


def compute_of(record: RunRecord, axis: Axis) -> float:
    """Return the compute of a whole run in PFLOP/s-days."""
    return record.train_flops[axis] / PFLOPS_DAY
