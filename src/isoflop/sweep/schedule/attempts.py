"""How often a run is tried, and what is noted of one that cannot be trained.

What it left on disk says when to give up, whoever asks, so that its siblings and the report go on.
"""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.config import RunConfig, RunRecord
from isoflop.costs import forward_flops, parameters, train_flops_per_token
from isoflop.runs import Attempt, RunFolder, branched, without_progress

FAILURES = 3
"""Failed attempts from one checkpoint after which a run counts as failed."""
LOST = 10
"""Attempts from one checkpoint that were killed with nobody left to tell why, after which it does.

A power cut and a kill of the scheduler are no fault of the run, so this is generous; but a run
for which the system kills everything, each time, must not go on for ever."""


def failures(attempts: Sequence[Attempt]) -> list[str]:
    """Return why attempts failed since the run gained a checkpoint, the last one first."""
    failed = [one for one in without_progress(attempts) if one.ending == "failed"]
    return [one.reason or "no reason was recorded" for one in failed]


def given_up(attempts: Sequence[Attempt]) -> str | None:
    """Return why a run is not tried again, None where it is; no attempt is under way."""
    reasons = failures(attempts)
    if len(reasons) >= FAILURES:
        return reasons[0]
    lost = sum(one.ending is None for one in without_progress(attempts))
    if lost >= LOST:
        return (
            f"killed {lost} times from the same checkpoint with nobody left to tell why; memory "
            "may have run out"
        )
    return None


def note_failure(config: RunConfig, folder: RunFolder, reason: str, *, since: int) -> list[Attempt]:
    """Note that an attempt failed, unless its process did so itself; return the attempts.

    There were `since` attempts before this one.

    Raises:
        RunClaimed: another live process works on the run.
        StorageError: the folder cannot be written.
    """
    with folder.claim():
        folder.create(config)
        made = folder.attempts_made()
        if not (made and made[-1].number > since and made[-1].ending == "failed"):
            folder.end_attempt("failed", reason)
        return folder.attempts_made()


def commit_failure(
    config: RunConfig, folder: RunFolder, reason: str, *, data_sha256: str, device: str
) -> None:
    """Record that a run failed, unless it has a record by now; raises as `note_failure`."""
    with folder.claim():
        folder.create(config)
        if folder.record() is not None:
            return
        pinned = folder.pinned()
        if pinned is None:
            from isoflop.training import environment

            present = environment(device, threads=1, compiled=False)
        else:
            present, data_sha256 = pinned.environment, pinned.data_sha256
        rows, _ = folder.read_metrics()
        length = config.data.sequence_length
        tokens = int(rows[-1]["step"]) * config.tokens_per_step if rows else 0
        folder.write_record(
            RunRecord(
                run_id=config.run_id,
                state="failed",
                reason=reason,
                config=config,
                parameters=parameters(config.model),
                forward_flops=forward_flops(config.model, length, config.convention).per_token,
                train_flops={
                    name: tokens * train_flops_per_token(config.model, length, name)
                    for name in ("causal", "full", "6nd")
                },
                seconds=sum(float(row.get("seconds", 0.0)) for row in rows),
                attempts=max(1, folder.attempts),
                **branched(rows),
                data_sha256=data_sha256,
                environment=present,
            )
        )
