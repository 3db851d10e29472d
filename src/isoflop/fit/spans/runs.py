"""Finished runs of a scaling study with their losses by position, by variant, size and seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isoflop.config import RunRecord, SpanLoss, Split
from isoflop.config.run import Span
from isoflop.fit.spans.values import PFLOPS_DAY, Axis

AXES: tuple[Axis, ...] = ("6nd", "causal")

Shape = tuple[int, int]
"""Blocks and width: what a size is in every variant."""


@dataclass(frozen=True)
class SpanRuns:
    """Runs of a study that tell positions apart."""

    spans: tuple[Span, ...]
    variants: tuple[str, ...]
    """In the order of the records."""
    shapes: tuple[Shape, ...]
    """Of all runs, finished or not, the smallest model first."""
    non_embedding: Mapping[tuple[str, Shape], int]
    """N of each variant's sizes."""
    finished: Mapping[tuple[str, Shape], Mapping[int, RunRecord]]
    """By seed, ascending."""
    split: Split

    @classmethod
    def of(
        cls, records: Sequence[RunRecord], variant_of: Mapping[str, str], split: Split
    ) -> SpanRuns:
        """Return the runs of `variant_of`; records of others are left aside.

        Raises:
            ValueError: no run tells positions apart, or they tell different ones; two runs are
                the same seed of the same size; a finished one has no loss; or runs of one size
                differ in what they were trained or evaluated on.
        """
        own = [record for record in records if record.run_id in variant_of]
        asked = {record.config.spans for record in own} - {()}
        if len(asked) != 1:
            raise ValueError(
                f"the runs tell {len(asked)} different sets of positions apart; expected runs of "
                "one study with [positions]"
            )
        sizes: dict[tuple[str, Shape], int] = {}
        finished: dict[tuple[str, Shape], dict[int, RunRecord]] = defaultdict(dict)
        for record in sorted(own, key=lambda one: one.config.seed):
            model = record.config.model
            key = variant_of[record.run_id], (model.blocks, model.width)
            sizes[key] = record.parameters.non_embedding
            if record.state != "finished" or not record.config.spans:
                continue
            runs = finished[key]
            if record.config.seed in runs:
                raise ValueError(
                    f"runs {runs[record.config.seed].run_id} and {record.run_id} are both seed "
                    f"{record.config.seed} of {key[0]!r} at {model.blocks} blocks of width "
                    f"{model.width}; expected one run of each seed"
                )
            runs[record.config.seed] = record
        for runs in finished.values():
            _check_alike(list(runs.values()), split)
        return cls(
            spans=next(iter(asked)),
            variants=tuple(dict.fromkeys(variant_of[record.run_id] for record in own)),
            shapes=tuple(dict.fromkeys(shape for _, shape in sorted(sizes, key=sizes.__getitem__))),
            non_embedding=sizes,
            finished=finished,
            split=split,
        )

    def compute(self, variant: str, shape: Shape) -> dict[Axis, float]:
        """Return the training compute of a finished size in PFLOP/s-days, by counting."""
        record = next(iter(self.finished[variant, shape].values()))
        return {axis: record.train_flops[axis] / PFLOPS_DAY for axis in AXES}

    def data_sha256(self, variant: str, shape: Shape) -> str:
        """Return the fingerprint of the data that a finished size read."""
        return next(iter(self.finished[variant, shape].values())).data_sha256

    def losses(self, variant: str, shape: Shape, span: Span) -> dict[int, SpanLoss]:
        """Return the loss in a span of each finished seed; empty where no window reaches it."""
        found = {}
        for seed, record in self.finished.get((variant, shape), {}).items():
            evaluation = record.evaluation(self.split)
            assert evaluation is not None
            for one in evaluation.spans:
                if (one.start, one.stop) == span:
                    found[seed] = one
        return found


def mismatch(one: RunRecord, other: RunRecord, split: Split) -> str | None:
    """Return what keeps the losses of two runs from being held against each other."""
    if one.data_sha256 != other.data_sha256:
        return "other data"
    if one.config.tokens != other.config.tokens:
        return f"{one.config.tokens:,} and {other.config.tokens:,} training tokens"
    if _windows(one, split) != _windows(other, split):
        return "other documents or windows in the evaluation"
    return None


def _windows(record: RunRecord, split: Split) -> list[tuple[int, int, tuple[int, ...]]]:
    evaluation = record.evaluation(split)
    assert evaluation is not None
    return [(span.start, span.stop, span.document_windows) for span in evaluation.spans]


def _check_alike(runs: Sequence[RunRecord], split: Split) -> None:
    for run in runs:
        evaluation = run.evaluation(split)
        if evaluation is None or not evaluation.spans:
            raise ValueError(
                f"run {run.run_id} is finished but has no {split} loss by position; "
                "evaluate it again"
            )
        apart = mismatch(runs[0], run, split)
        if apart is not None:
            raise ValueError(
                f"runs {runs[0].run_id} and {run.run_id} are seeds of one size but have {apart}; "
                "expected the same for every seed"
            )
