"""The studies that ship: they load, are named as their files, and can be planned here."""

from pathlib import Path

import pytest

from isoflop.config.load import load_study
from isoflop.planning import accelerator_speed, make_plan

FILES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


def test_the_five_studies_are_here():
    assert {path.stem for path in FILES} >= {
        "demo",
        "mod-variants",
        "mod-seeds",
        "mod-isoflop",
        "mod-variants-paper",
        "mod-isoflop-paper",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_tells_its_command_duration_and_expectation(path):
    assert load_study(path).name == path.stem
    top = path.read_text().split("\nname = ")[0]
    assert f"studies/{path.name}" in top
    for word in ("# Command:", "# Duration:", "# Expected:"):
        assert word in top


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_can_be_planned(path):
    study = load_study(path)
    plan = make_plan(study, speed=accelerator_speed("H100-SXM"), memory_bytes=80e9)
    seeds = len(study.seeds) if study.replicate == "all" else 1
    cells = len(study.variants) * len(study.budgets_flops)
    assert len(plan.rows) == study.grid.sizes * cells * seeds
    assert plan.elapsed_seconds is not None
    for row in plan.rows:
        assert row.achieved_flops == pytest.approx(row.budget_flops, rel=0.01)
        if study.name.endswith("-paper"):
            assert 50e6 <= row.parameters <= 3e9
            assert row.tokens_per_step == 128 * 2048
