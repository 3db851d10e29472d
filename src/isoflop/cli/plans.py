"""From the options of `isoflop plan` to a plan: speeds, workers, memory, size of the corpus."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from isoflop.config import Study
from isoflop.data import CorpusSize, Unavailable, describe
from isoflop.hardware import usable_cores
from isoflop.planning import Plan, Speed, accelerator, accelerator_speed, make_plan, next_runs
from isoflop.sweep import Settled, kept_precision, settled

LARGEST_MEASURED_FLOPS = 1e16
"""Budget of a run above which nobody trains on a CPU: there a single step takes a minute."""


def plan_study(
    study: Study,
    root: Path,
    results: Path,
    device: str | None,
    utilisation: float,
    workers: int | None,
    cache: Path,
    memory_bytes: int | None = None,
) -> tuple[Plan, str]:
    """Return the plan of a study, and in which precision and where its times come from.

    Args:
        study: What is asked.
        root: Its folder; need not exist.
        results: Folder of committed results.
        device: Name of an accelerator; None for this machine.
        utilisation: Share of the accelerator's peak that is achieved.
        workers: Runs at a time; None for one per core here, or one accelerator.
        cache: Where prepared corpora lie.
        memory_bytes: Memory that a run may take; None for all there is.

    Raises:
        ValueError: a run cannot be trained within its budget, or an option is out of range.
    """
    if device is None:
        kept = settled(study, root, results)
    else:
        kept = kept_precision(study, root, results) or _of_accelerators(study)
    study, words = kept.study, kept.words
    corpus = describe(study.data, cache)
    if device is None:
        workers = usable_cores().count if workers is None else workers
        speed, timing = _measured(study)
        memory = _physical_memory() / max(1, workers)
    else:
        workers = 1 if workers is None else workers
        speed = accelerator_speed(device, utilisation)
        memory = accelerator(device).memory_bytes
        timing = f"{device} at {utilisation:.0%} utilisation, one device per run"
    made = make_plan(
        study,
        train_tokens=corpus.train_tokens if isinstance(corpus, CorpusSize) else None,
        speed=speed,
        workers=workers,
        memory_bytes=memory if memory_bytes is None else min(memory, memory_bytes),
    )
    if isinstance(corpus, Unavailable):
        made = made.model_copy(update={"warnings": (*made.warnings, corpus.reason)})
    return made, f"{timing}; {words}"


def _of_accelerators(study: Study) -> Settled:
    """Return a study in the precision that every accelerator to plan for has units for."""
    return Settled(study.with_precision("bf16"), "every accelerator's units", None)


def _measured(study: Study) -> tuple[Speed | None, str]:
    """Return the speed of the study's runs on one thread here, and how it is known."""
    runs = next_runs(study, [])
    if max(run.budget_flops for run in runs) > LARGEST_MEASURED_FLOPS:
        return None, "not for this machine, which would take too long; name an --accelerator"
    # Seconds go by before there is anything to show.
    print(f"measuring steps of {len(runs)} models here", file=sys.stderr, flush=True)
    from isoflop.training import measure_speed

    return measure_speed(
        [run.config for run in runs]
    ), "from steps measured here just now, one thread per run"


def _physical_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
