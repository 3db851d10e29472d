"""What difference a study will resolve, by the noise of runs at hand: its own, or another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isoflop.config import Study
from isoflop.config.load import load_study
from isoflop.costs import parameters
from isoflop.estimate import Power
from isoflop.fit import frame
from isoflop.fit.compare.power import Design, expected_power, recorded_noise
from isoflop.fit.intervals import Floats
from isoflop.fit.minima.parabola import PARABOLA_SIZES
from isoflop.planning.cell import cells
from isoflop.sweep.ledger import STUDY, Folders, Ledger, study_in
from isoflop.sweep.status import trained


def study_power(study: Study, ledger: Ledger, source: str = "this study") -> Power | None:
    """Return what a study resolves by the noise of a ledger's runs.

    None where these do not tell it, or where the study has no minima to compare.
    """
    sizes = _sizes(study)
    runs = ledger.runs
    records = [record for record in ledger.records if record.run_id in runs.variant_of]
    if sizes is None or not records or ledger.study.scaling is not None:
        return None
    table = frame(records, runs.variant_of, off_ladder=runs.off_ladder)
    noise = recorded_noise(table, ledger.study.baseline_variant.name)
    if noise is None:
        return None
    declared, most = len(study.seeds), study.seeds_at_most
    design = Design(sizes, study.replicate == "all", None if most is None else declared)
    return expected_power(noise, design, most or declared, study.margin, source)


def noise_source(path: Path, results: Path) -> Ledger:
    """Return the records of a study's file, or of its folder in `runs` or in `results`.

    Raises:
        ValueError: there is no study, or none of its runs has a record.
    """
    if path.is_dir():
        study, folders = study_in(path, results)
        return trained(study, folders.root, folders.results, path / STUDY)
    study = load_study(path)
    return trained(study, Folders.of(study).root, results, path)


def _sizes(study: Study) -> tuple[Floats, Floats] | None:
    """Return the first sizes of the baseline and of another variant at the first budget."""
    first = [one for one in cells(study) if one.budget_flops == study.budgets_flops[0]]
    pair = {one.variant == study.baseline_variant: one for one in reversed(first)}
    found = {
        whose: np.array([float(parameters(cell.model(rung)).total) for rung in cell.initial])
        for whose, cell in pair.items()
    }
    enough = len(found) == 2 and min(map(len, found.values())) >= PARABOLA_SIZES
    return (found[True], found[False]) if enough else None
