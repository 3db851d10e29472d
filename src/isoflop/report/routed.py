"""The routed model that a report looks into: which one, what is known of it, colours of depth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from isoflop.config import RunEvaluation, RunRecord, Study, TextSample

LIGHTEST, DARKEST = (0xCF, 0xE6, 0xF5), (0x00, 0x50, 0x8C)
"""One hue from light to dark, so that colour vision and grey prints do not matter. The darkest
still stands out from a dark terminal."""

WHITE_FROM = 0.72
"""Of the way from light to dark, from where on white stands out more than black (WCAG 2)."""


@dataclass(frozen=True)
class RoutedModel:
    """A trained model of the study's challenger, and what was found out about it."""

    variant: str
    folder: str
    """Of the run, where studies lie by default."""
    record: RunRecord
    evaluation: RunEvaluation | None
    """What `isoflop eval` kept."""
    sample: TextSample | None
    """What `isoflop sample --write` kept."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Commands that would find out the rest."""
        asked = () if self.evaluation else (f"isoflop eval {self.folder}",)
        if self.sample is None:
            asked = (*asked, f"isoflop sample {self.folder} --prompt TEXT --write")
        return asked


def routed_model(
    study: Study,
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    evaluations: Mapping[str, RunEvaluation],
    samples: Mapping[str, TextSample],
    trained: Collection[str] = (),
) -> RoutedModel | None:
    """Return the challenger's run to look into.

    Of its runs that are on disk with an evaluation or a sample, it is the one with the lowest test
    loss; without any, of those that still have their checkpoint, or of all.

    Args:
        study: whose challenger.
        records: outcomes of its runs.
        variant_of: name of the variant of each run id.
        evaluations: those at hand, by run id.
        samples: those at hand, by run id.
        trained: ids of runs whose checkpoint is at hand.

    Returns:
        None where the study has no challenger, or no run of it has finished.
    """
    challenger = study.challenger_variant
    if challenger is None:
        return None
    losses = {
        record.run_id: (evaluation.loss, record.run_id)
        for record in records
        if variant_of.get(record.run_id) == challenger.name
        and record.config.model.routed_blocks
        and record.state == "finished"
        and (evaluation := record.evaluation()) is not None
    }
    known = losses.keys() & (evaluations.keys() | samples.keys())
    candidates = known or losses.keys() & set(trained) or losses
    best = min(candidates, key=lambda run_id: losses[run_id], default=None)
    if best is None:
        return None
    record = next(record for record in records if record.run_id == best)
    folder = f"runs/{study.name}/runs/{best}"
    return RoutedModel(challenger.name, folder, record, evaluations.get(best), samples.get(best))


class DepthColour(NamedTuple):
    """A background, and black or white to write on it, as hexadecimal codes."""

    background: str
    text: str


def depth_colours(routed: int) -> tuple[DepthColour | None, ...]:
    """Return the colour of tokens that 0, 1, ... `routed` blocks processed.

    None for those that no block did, which are left as they are.
    """
    return (None, *(_colour(i / (routed - 1) if routed > 1 else 1.0) for i in range(routed)))


def _colour(share: float) -> DepthColour:
    mixed = [
        round(light + share * (dark - light)) for light, dark in zip(LIGHTEST, DARKEST, strict=True)
    ]
    return DepthColour(f"#{bytes(mixed).hex()}", "#ffffff" if share >= WHITE_FROM else "#000000")
