"""What a study will take on a machine: speeds, workers, memory, size of the corpus."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from isoflop.config import RunConfig, Study
from isoflop.data import describe
from isoflop.hardware import usable_cores
from isoflop.hardware.accelerators import (
    ASSUMED_UTILISATION,
    MeasuredStep,
    Speed,
    accelerator,
    accelerator_speed,
    measured_share,
    measured_steps,
)
from isoflop.planning import Plan, foreseen_runs, make_plan, next_runs
from isoflop.runs import RunFolder
from isoflop.sweep.ledger import Folders, Ledger
from isoflop.sweep.precision import Settled, kept_precision, settled
from isoflop.text import quoted

LARGEST_MEASURED_FLOPS = 1e16
"""Budget of a run above which nobody trains on a CPU: there a single step takes a minute."""


MEASURED = Path("gpu") / "train.json"
"""What `tools/gpu/run` measured of training, among the results."""


@dataclass(frozen=True)
class Machine:
    """What a study is planned for: this machine unless an accelerator is named."""

    accelerator: str | None = None
    """Name of a device, of which each run takes one."""
    utilisation: float | None = None
    """Share of its peak that is achieved where `bench` does not tell; None for the usual share,
    and for `MEASURED` among the results where that was measured on the accelerator."""
    bench: Path | None = None
    """File of `isoflop bench train --sizes` whose utilisation is taken, on whatever device."""
    workers: int | None = None
    """Runs at a time; None for one per core here, or one accelerator."""
    memory_bytes: int | None = None
    """Memory that a run may take; None for all there is."""


def plan_study(
    study: Study,
    folders: Folders | None = None,
    machine: Machine = Machine(),
    noise_from: Path | None = None,
) -> tuple[Plan, str]:
    """Return the plan of a study, and in which precision and where its times come from.

    Args:
        study: what is asked.
        folders: where it lives; the usual ones if left out. Nothing need exist.
        machine: what to plan for; speeds of this one are measured, which takes seconds.
        noise_from: a study, or its folder, by whose runs it is told what this one will resolve;
            by its own if left out.

    Raises:
        ValueError: a run cannot be trained within its budget, or an option is out of range.
    """
    from isoflop.sweep.power import noise_source, study_power  # fits take a second to load

    folders = folders or Folders.of(study)
    noise = None if noise_from is None else noise_source(noise_from, folders.results)
    device, workers, memory_bytes = machine.accelerator, machine.workers, machine.memory_bytes
    names = quoted(", ".join(study.data.corpora))
    corpus = describe(
        study.data,
        folders.cache,
        tell=lambda now: print(f"preparing {names}: {now.words}", file=sys.stderr, flush=True),
    )
    if device is None:
        kept = settled(study, folders.root, folders.results)
        workers = usable_cores().count if workers is None else workers
        speed, timing = _measured(kept.study)
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / max(1, workers)
    else:
        kept = kept_precision(study, folders.root, folders.results) or Settled(
            study.with_precision("bf16"), "every accelerator's units", None
        )
        workers = 1 if workers is None else workers
        memory = accelerator(device).memory_bytes
        speed, timing = _of_accelerator(device, kept.study, machine, folders.results / MEASURED)
    made = make_plan(
        kept.study,
        train_tokens=corpus if isinstance(corpus, int) else None,
        speed=speed,
        workers=workers,
        memory_bytes=memory if memory_bytes is None else min(memory, memory_bytes),
        device="cpu" if device is None else "cuda",
    )
    if noise is None:
        power = study_power(kept.study, Ledger(kept.study, folders.root, folders.results))
    else:
        power = study_power(kept.study, noise, str(noise_from))
        if power is None and made.compares:
            raise ValueError(
                f"--noise-from is {noise_from}, whose runs do not tell the noise between seeds; "
                "expected two seeds of a size near a minimum"
            )
    made = made.model_copy(update={"power": power})
    if isinstance(corpus, str):
        made = made.model_copy(update={"warnings": (*made.warnings, corpus)})
    return made, f"{timing}; {kept.words}"


def _of_accelerator(
    device: str, study: Study, machine: Machine, measured: Path
) -> tuple[Speed, str]:
    """Return the speed of the study's runs on an accelerator each, and how it is known."""
    steps: tuple[MeasuredStep, ...] = ()
    path = machine.bench or measured
    if machine.bench is not None:
        steps = measured_steps(path)
    elif machine.utilisation is None and path.exists():
        # Those of another device tell of this one only where somebody says so.
        named = accelerator(device).names
        steps = tuple(step for step in measured_steps(path) if step.device in named)
    assumed = ASSUMED_UTILISATION if machine.utilisation is None else machine.utilisation
    speed = accelerator_speed(device, assumed, steps)
    shares = [(run.variant, measured_share(run.config, steps)) for run in foreseen_runs(study)]
    known = [f"{share:.0%}" for share in sorted(share for _, share in shares if share is not None)]
    others = dict.fromkeys(variant for variant, share in shares if share is None)
    told = []
    if known:
        devices = quoted(", ".join(sorted({step.device for step in steps})))
        span = known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"
        told = [f"{span} utilisation, measured on {devices} ({quoted(str(path))})"]
    if others:
        of = f" for {quoted(', '.join(others))}" if known else ""
        told.append(f"{assumed:.0%} utilisation{of}, which is assumed")
    return speed, f"{device} at {' and '.join(told)}, one device per run"


def _measured(study: Study) -> tuple[Speed | None, str]:
    """Return the speed of the study's runs on one thread here, and how it is known."""
    runs = foreseen_runs(study)
    if max(run.budget_flops for run in runs) > LARGEST_MEASURED_FLOPS:
        return None, "not for this machine, which would take too long; name an --accelerator"
    # Seconds go by before there is anything to show.
    print(f"measuring steps of {len(runs)} models here", file=sys.stderr, flush=True)
    from isoflop.training import measure_speed

    speed = measure_speed([run.config for run in runs])
    return speed, "from steps measured here just now, one thread per run"


def run_of(study: Study, folders: Folders, run_id: str) -> tuple[RunConfig, RunFolder]:
    """Return one of a study's runs and its folder; its precision is as `settled` finds it.

    Raises:
        ValueError: the study has no such run so far.
    """
    study = settled(study, folders.root, folders.results).study
    ledger = Ledger(study, folders.root, folders.results)
    records = ledger.records
    known = {record.run_id: record.config for record in records}
    for run in (*foreseen_runs(study), *next_runs(study, records)):
        known[run.config.run_id] = run.config
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`isoflop plan` lists them"
        raise ValueError(f"study {study.name} has no run {run_id!r}; {hint}")
    return known[run_id], ledger.store.folder(run_id)
