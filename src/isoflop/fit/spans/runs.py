"""Finished runs of a scaling study with their losses by position, by variant, size and seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isoflop.config import RunRecord, SpanLoss, Split
from isoflop.config.run import Span
from isoflop.fit.intervals import Floats, WithError, document_estimate

Shape = tuple[int, int]
"""Blocks and width: what a size is in every variant."""
Seen = tuple[float, Sequence[float] | Floats]
"""Loss of a run, or of one less another's, and the summed losses of its documents."""


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
            model, seed = record.config.model, record.config.seed
            key = variant_of[record.run_id], (model.blocks, model.width)
            sizes[key] = record.parameters.non_embedding
            if record.state != "finished" or not record.config.spans:
                continue
            if seed in finished[key]:
                raise ValueError(
                    f"runs {finished[key][seed].run_id} and {record.run_id} are both seed {seed} "
                    f"of {key[0]!r} at {model.blocks} blocks of width {model.width}; expected one "
                    "run of each seed"
                )
            finished[key][seed] = record
            if not _losses(record, split):
                raise ValueError(
                    f"run {record.run_id} is finished but has no {split} loss by position; "
                    "evaluate it again"
                )
            first = next(iter(finished[key].values()))
            apart = mismatch(first, record, split)
            if apart is not None:
                raise ValueError(
                    f"runs {first.run_id} and {record.run_id} are seeds of one size but have "
                    f"{apart}; expected the same for every seed"
                )
        return cls(
            spans=next(iter(asked)),
            variants=tuple(dict.fromkeys(variant_of[record.run_id] for record in own)),
            shapes=tuple(dict.fromkeys(shape for _, shape in sorted(sizes, key=sizes.__getitem__))),
            non_embedding=sizes,
            finished=finished,
            split=split,
        )

    def first(self, variant: str, shape: Shape) -> RunRecord:
        """Return a run of a finished size, for what all of its seeds have in common."""
        return next(iter(self.finished[variant, shape].values()))

    def losses(self, variant: str, shape: Shape, span: Span) -> dict[int, SpanLoss]:
        """Return the loss in a span of each finished seed; empty where no window reaches it."""
        return {
            seed: one
            for seed, record in self.finished.get((variant, shape), {}).items()
            for one in _losses(record, self.split)
            if (one.start, one.stop) == span
        }


def mismatch(one: RunRecord, other: RunRecord, split: Split) -> str | None:
    """Return what keeps the losses of two runs from being held against each other."""
    if one.data_sha256 != other.data_sha256:
        return "other data"
    if one.config.tokens != other.config.tokens:
        return f"{one.config.tokens:,} and {other.config.tokens:,} training tokens"
    read, also = (
        [(span.start, span.stop, span.document_windows) for span in _losses(record, split)]
        for record in (one, other)
    )
    return None if read == also else "other documents or windows in the evaluation"


def _losses(record: RunRecord, split: Split) -> tuple[SpanLoss, ...]:
    evaluation = record.evaluation(split)
    return () if evaluation is None else evaluation.spans


class Measured(NamedTuple):
    """A mean over sizes, with the error of both parts, and each of them."""

    whole: WithError
    seeds: WithError | None
    """None where no size has two seeds."""
    documents: WithError


def measured(
    sizes: Mapping[Shape, Sequence[Seen]], chosen: Sequence[Shape], one: SpanLoss
) -> Measured | None:
    """Return the mean over chosen sizes, each a mean over seeds; None of fewer than two documents.

    Sizes are fixed: a mean over them speaks of these sizes. The seeds' part of the variance is that
    within sizes, pooled over all of them, so that it is taken to be alike at all sizes and
    independent between them. The documents' part is that of `document_estimate` on each document,
    averaged over seeds and then sizes. Both are added, which counts what is a seed's and a
    document's together twice: small, and to the safe side.

    The inverse degrees of freedom are averaged by the shares of both variances, after Cochran and
    Cox (Experimental Designs, section 4.14). Satterthwaite's are too many where a few
    documents weigh the most: by chance their variance comes out small, and with it their share.

    Args:
        sizes: what was seen of each seed, by size.
        chosen: the sizes that the mean is over.
        one: a loss on the same documents.
    """
    groups = {shape: [loss for loss, _ in seen] for shape, seen in sizes.items()}
    by_document = [np.mean(np.array([sums for _, sums in sizes[one]]), axis=0) for one in chosen]
    tokens = [windows * (one.stop - one.start) for windows in one.document_windows]
    documents = document_estimate(np.mean(by_document, axis=0), tokens)
    if documents is None:
        return None
    value = float(np.mean([np.mean(groups[shape]) for shape in chosen]))
    free = sum(len(group) - 1 for group in groups.values())
    if not free:
        return Measured(documents.model_copy(update={"value": value}), None, documents)
    variance = sum(float(np.var(group)) * len(group) for group in groups.values()) / free
    error = math.sqrt(variance * sum(1 / len(groups[shape]) for shape in chosen)) / len(chosen)
    seeds = WithError(value=value, error=error, degrees_of_freedom=free)
    parts = [(part.error**2, part.degrees_of_freedom) for part in (seeds, documents)]
    total = sum(variance for variance, _ in parts)
    freedom = min(of_part for _, of_part in parts)
    if total > 0:
        freedom = total / sum(variance / of_part for variance, of_part in parts)
    whole = WithError(value=value, error=math.sqrt(total), degrees_of_freedom=freedom)
    return Measured(whole, seeds, documents)
