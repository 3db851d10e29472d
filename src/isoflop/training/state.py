"""The state of a run: its newest checkpoint, when the next is due, or steps shared with another."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch

from isoflop import checkpoint, storage
from isoflop.config import Environment, RunConfig
from isoflop.model import build
from isoflop.runs import Pinned, RunFolder
from isoflop.training.curve import has_losses, is_validated
from isoflop.training.optimisation.sharding import local, part_of, split_as, whole

if TYPE_CHECKING:
    from isoflop.training.step import Trainer


CHECKPOINT_SECONDS = 30.0
"""Time between two checkpoints, where saving one is quick."""
CHECKPOINT_SHARE = 0.02
"""Most of a run's time that saving checkpoints may take."""


class Pace:
    """When a checkpoint is due: as often as told, else so that all of them take a small share.

    Args:
        seconds: between two checkpoints; None for `CHECKPOINT_SECONDS`, or longer where saving is
            slow: by the second one, all so far take `CHECKPOINT_SHARE` of the time at most.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._began, self._spent = time.monotonic(), 0.0
        self._due = self._began + (CHECKPOINT_SECONDS if seconds is None else seconds)

    @property
    def is_due(self) -> bool:
        """Whether it is time to save one."""
        return time.monotonic() > self._due

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Count what is done meanwhile as saving."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        self._spent += now - began
        if self._seconds is None:
            with_one_more = (self._spent + now - began) / CHECKPOINT_SHARE
            self._due = max(now + CHECKPOINT_SECONDS, self._began + with_one_more)
        else:
            self._due = now + self._seconds


def newest_checkpoint(folder: RunFolder, run_id: str) -> checkpoint.Checkpoint | None:
    """Return the newest valid checkpoint in `folder`, None where none was ever saved.

    Raises:
        ValueError: it is of another run than `run_id`, or none is good.
    """
    saved = checkpoint.latest(folder.checkpoints)
    # Those of earlier versions do not tell.
    if saved is not None and saved.values.get("run_id", run_id) != run_id:
        raise ValueError(
            f"{folder.checkpoints} holds checkpoints of run {saved.values['run_id']}, expected "
            f"{run_id}; remove the folder to start from zero"
        )
    return saved


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return all that a trainer goes on from, put together; all ranks call this alike."""
    tensors = {f"model.{k}": whole(v) for k, v in trainer.model.state_dict().items()}
    tensors |= {f"optimiser.{k}": v for k, v in trainer.optimiser.state().items()}
    tensors |= {f"average.{k}": whole(v) for k, v in (trainer.average or {}).items()}
    return tensors


def load_state(trainer: Trainer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Go on from what `state_of` returned, on as many ranks as there are now."""
    held = trainer.model.state_dict()
    of_model = tensors_under(tensors, "model.")
    trainer.model.load_state_dict(
        {k: split_as(held[k], v) if k in held else v for k, v in of_model.items()}
    )
    trainer.optimiser.load_state(tensors_under(tensors, "optimiser."))
    for name, tensor in tensors_under(tensors, "average.").items():
        if trainer.average is not None:
            average = trainer.average[name]
            local(average).copy_(part_of(average, tensor))


def put_together(trainer: Trainer) -> None:
    """Give the rank that leads the whole model, to be asked alone; all ranks call this alike."""
    if not trainer.sharded:
        return
    tensors = state_of(trainer)
    if trainer.ranks.leads:
        model = build(trainer.config.model)
        model.load_state_dict(tensors_under(tensors, "model."))
        trainer.model = model.to(trainer.device)
        trainer.average = tensors_under(tensors, "average.") or None


def tensors_under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose name begins with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def branch(config: RunConfig, folder: RunFolder, pinned: Pinned) -> None:
    """Give a run without a checkpoint the most first steps that a run beside it has kept for it.

    They are what they would be in a run of its own, bit for bit; a warning tells why others are
    not taken. Raises StorageError where the folder cannot be written.
    """
    if checkpoint.newest_step(folder.checkpoints):
        return
    for step, parent in _parents(config, folder):
        try:
            rows, tensors = _first_steps(config, parent, step, pinned)
        except (ValueError, OSError) as error:
            named = f"the first {step} steps are not those of run {parent.path.name}"
            warnings.warn(f"{named}: {error}", stacklevel=3)
            continue
        # Rows without a checkpoint are cut at the next start.
        with folder.open_metrics(0) as metrics:
            for row in rows:
                metrics.append(row)
            metrics.sync()
        values: dict[str, storage.JSON] = {"run_id": config.run_id, "seconds": 0.0}
        checkpoint.save(folder.checkpoints, step, tensors, values, confirm=folder.check_claim)
        return


def started_in(config: RunConfig, folder: RunFolder, now: Environment) -> Environment | None:
    """Return what the run was started in that a run may branch from, None where it was another.

    But for what was found out there, which holds for both, it is what there is `now`.
    """
    found_out = {name: getattr(now, name) for name in ("micro_batch", "recompute", "attention")}
    for _, parent in _parents(config, folder):
        with suppress(ValueError):
            theirs = parent.pinned()
            if theirs and theirs.environment.model_copy(update=found_out) == now:
                return theirs.environment
    return None


def _parents(config: RunConfig, folder: RunFolder) -> list[tuple[int, RunFolder]]:
    """Return after how many steps a run may branch from which run beside it, the most first."""
    found = []
    for path in storage.entries(folder.path.parent):
        # What is wrong with another run's folder, who trains that run is told.
        with suppress(ValueError):
            other = RunFolder(storage.inside(path.parent, path.name))
            step = checkpoint.newest_step(other.stable)
            if 0 < step <= config.stable_steps and other.config().stem == config.stem:
                found.append((step, other))
    return sorted(found, key=itemgetter(0), reverse=True)


def _first_steps(
    config: RunConfig, parent: RunFolder, step: int, pinned: Pinned
) -> tuple[list[dict[str, Any]], Mapping[str, torch.Tensor]]:
    """Return metrics and state of another run after some steps, as its own to a run.

    Raises:
        ValueError: they are damaged, or would have been others in a run of its own.
        OSError: they cannot be read.
    """
    theirs = parent.pinned()
    if theirs is None or theirs.data_sha256 != pinned.data_sha256:
        raise ValueError("they were trained on other data")
    changed = theirs.differences(pinned.environment)
    if changed or any(attempt.changed for attempt in parent.attempts_made()):
        named = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in changed.items())
        raise ValueError(f"they were trained in another environment ({named or 'on the way'})")
    saved = checkpoint.latest(parent.stable)
    rows = parent.read_metrics()[0][:step]
    whole = [row["step"] for row in rows if has_losses(row, len(config.spans))]
    if saved is None or saved.step != step or whole != list(range(1, step + 1)):
        raise ValueError(f"{parent.path} lacks some of them")
    for row in rows:
        row["parent"] = parent.path.name
        row.pop("seconds", None)
        if not is_validated(row["step"], config.steps):
            row.pop("validation", None)
    return rows, saved.tensors
