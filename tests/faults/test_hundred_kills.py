"""A study that is killed a hundred times ends as the one that never was."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import Killer
from processes import others, wait_for

from isoflop.config import Variant
from outcomes import assert_same_run
from sweep_studies import BASELINE, LONGER, ROUTED, brief, write_corpus


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "variants", "budget"),
    [
        (4, (ROUTED,), LONGER),
        (100, (BASELINE, ROUTED), 1e9),
    ],
    ids=["4 kills", "100 kills"],
)
def test_a_killed_study_ends_as_an_undisturbed_one(
    tmp_path: Path, kills: int, variants: tuple[Variant, ...], budget: float
) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), *variants, budget=budget)
    killer = Killer(study, tmp_path, seed=kills, checkpoint_seconds=0.05, measuring=kills > 50)
    killer.kill(kills)
    killer.finish()
    wait_for(lambda: not others())
    assert killer.victims.total() == kills
    right = Killer(study, tmp_path / "right")
    right.folder.mkdir()
    right.finish()
    if kills > 50:
        assert set(killer.victims) == {"worker", "scheduler", "group"}
    assert len(right.store.folders()) == 3 * len(variants)
    assert {f.path.name for f in killer.store.folders()} == {
        f.path.name for f in right.store.folders()
    }
    for folder in right.store.folders():
        assert_same_run(killer.store.folder(folder.path.name), folder)
