"""The precision of a study's runs: settled when it is started first, and kept from then on.

Runs in two precisions have other run ids and do not compare, so a study never mixes them. What
settles it lies in the study's folder; a study that was trained or committed before keeps what its
runs have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoflop import storage
from isoflop.config import Precision, PrecisionChoice, RunConfig, Study
from isoflop.hardware import choose_precision
from isoflop.planning import foreseen_runs
from isoflop.runs import parse_value
from isoflop.sweep.ledger import STUDY

PRECISION = "precision.json"
"""File in a study's folder with what settled its precision, and the figures."""


@dataclass(frozen=True)
class Settled:
    """A study whose precision is known."""

    study: Study
    source: str | None
    """The file or folder that says so; None where the study does, or it was measured just now."""
    choice: PrecisionChoice | None
    """The figures that led to it, where they are known."""

    @property
    def precision(self) -> Precision:
        """The precision of every run."""
        return self.study.recipe.settled().precision

    @property
    def words(self) -> str:
        """The precision and where it comes from."""
        if self.source is not None:
            return f"precision {self.precision}, as in {self.source}"
        if self.choice is not None:
            return f"precision {self.precision}: {self.choice.figures} ({self.choice.place})"
        return f"precision {self.precision}, as the study says"


def kept_precision(study: Study, root: Path, results: Path | None = None) -> Settled | None:
    """Return a study with the precision that it was started with; None if it never was.

    Asked in this order: the study itself, `precision.json` and `study.json` in its folder, the same
    two in `results/NAME/`.

    Raises:
        ValueError: one of these files is damaged; it names the file.
    """
    if study.recipe.precision != "auto":
        choice = read_choice(root)
        alike = choice is not None and choice.precision == study.recipe.precision
        return Settled(study, None, choice if alike else None)
    committed = [] if results is None else [storage.inside(results, study.name)]
    for folder in (root, *committed):
        if (choice := read_choice(folder)) is not None:
            source = str(folder / PRECISION)
            return Settled(study.with_precision(choice.precision), source, choice)
        saved = storage.inside(folder, STUDY)
        match storage.read_json(saved) if saved.exists() else None:
            case {"recipe": {"precision": "bf16" | "fp32" as precision}}:
                return Settled(study.with_precision(precision), str(saved), None)
    return None


def settled(study: Study, root: Path, results: Path | None = None) -> Settled:
    """Return a study with its precision; where it was never started, what is faster here.

    That is measured, as `choose_precision` does it, which takes half a second and torch, and is
    not written down: only a start settles it.

    Raises:
        ValueError: a file of the study is damaged, or it cannot be planned.
    """
    kept = kept_precision(study, root, results)
    if kept is not None:
        return kept
    choice = choose_precision(first_runs(study), device="cpu", threads=1)
    return Settled(study.with_precision(choice.precision), None, choice)


def first_runs(study: Study) -> list[RunConfig]:
    """Return the runs of a study before any is recorded, for their sizes; precision is made up."""
    return [run.config for run in foreseen_runs(study.with_precision("fp32"))]


def settle(study: Study, root: Path, choice: PrecisionChoice) -> Settled:
    """Write down the precision found for a study that starts, unless another process was first.

    Returns what holds from now on; a StorageError tells that it cannot be written.
    """
    path = storage.inside(root, PRECISION)
    if storage.create_json(path, choice.model_dump(mode="json")):
        return Settled(study.with_precision(choice.precision), None, choice)
    first = read_choice(root)
    assert first is not None, "somebody wrote it just now"
    return Settled(study.with_precision(first.precision), str(path), first)


def slow_here(kept: Settled, here: PrecisionChoice) -> str | None:
    """Return in a line that a precision is slow by what was measured here; None if it is not."""
    times = here.slowness(kept.precision)
    if times is None:
        return None
    other = "fp32" if kept.precision == "bf16" else "bf16"
    reversed_ = here.model_copy(update={"precision": kept.precision})
    return (
        f"precision {kept.precision} is {times:.2g} times as slow as {other} on this machine "
        f"({reversed_.figures}); the study keeps it, since runs in two precisions do not compare. "
        f'To start anew: precision = "{other}" under [recipe], and another name'
    )


def read_choice(folder: Path) -> PrecisionChoice | None:
    """Return what settled the precision of the study in a folder, None where nothing tells."""
    path = storage.inside(folder, PRECISION)
    if not path.exists():
        return None
    return parse_value(PrecisionChoice, storage.read_json(path), str(path))
