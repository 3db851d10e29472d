"""Says which runs of a study other processes work on, and what is left for this one."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.planning import PlannedRun
from isoflop.runs import Holder, RunStore


def others(store: RunStore, needed: Sequence[PlannedRun]) -> list[Holder | None]:
    """Return who holds each needed run that is claimed; None for a holder that did not sign."""
    folders = [store.folder(run.config.run_id) for run in needed]
    return [folder.holder() for folder in folders if folder.is_claimed()]


def shared_words(holders: Sequence[Holder | None], free: int, here: str) -> str:
    """Return in a sentence who trains what, and what this process does.

    Args:
        holders: of each run that is claimed; at least one.
        free: needed runs that nobody works on.
        here: name of this host, which is not said.
    """
    known = dict.fromkeys(holder for holder in holders if holder is not None)
    names = [f"{one.pid}" + ("" if one.host == here else f" on {one.host}") for one in known]
    several = len(names) > 1
    if several:
        who = f"{len(names)} other processes (pids {', '.join(names[:-1])} and {names[-1]}) train"
    else:
        who = f"another process{f' (pid {names[0]})' if names else ''} trains"
    runs = "1 run" if len(holders) == 1 else f"{len(holders)} runs"
    if free:
        left = "the one" if free == 1 else f"the {free}"
        return f"{who} {runs} of this study; this one takes {left} that nobody works on"
    return (
        f"{who} {runs} of this study, and nothing is left to start: waiting for "
        f"{'their' if several else 'its'} {runs}"
    )
