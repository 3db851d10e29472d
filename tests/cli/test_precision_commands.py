"""Commands on a study that leaves its precision to the machine, and on runs in a slow one."""

import json
from pathlib import Path

import pytest

from isoflop import storage
from isoflop.bench import BenchReport
from isoflop.cli import main
from isoflop.cli.study_models import precision_here, precisions_here
from isoflop.planning import next_runs
from sweep_studies import machine


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """A machine whose every run goes at 1e9 FLOP/s, since measuring takes seconds."""
    monkeypatch.setattr("isoflop.training.measure_speed", lambda configs: lambda config: 1e9)


@pytest.fixture
def auto_file(study_file, study):
    """The small study, its precision left to the machine; `study` is in fp32."""
    values = json.loads(study_file.read_text())
    del values["recipe"]
    study_file.write_text(json.dumps(values))
    return study_file


GAIN = {"fp32": 1 / 40, "bf16": 4}
"""How many times as fast as fp32 bf16 is on a machine that is faster in either."""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plan_assumes_what_is_faster_here_and_says_so(
    auto_file, study, monkeypatch, precision, told
):
    choice = machine(GAIN[precision])
    monkeypatch.setattr("isoflop.hardware.precision.measure_speeds", lambda *_: choice.speeds)
    plan = told("plan", auto_file)
    runs = next_runs(study.with_precision(precision), [])
    assert [row["run_id"] for row in plan["rows"]] == [run.config.run_id for run in runs]
    assert f"precision {precision}: {choice.figures}" in plan["timing"]
    assert not Path("runs").exists()


def test_plan_goes_by_what_settled_it(auto_file, study, told):
    choice = machine(GAIN["fp32"])
    storage.write_json(Path("runs/small/precision.json"), choice.model_dump(mode="json"))
    for arguments in ((), ("--accelerator", "h100-sxm")):
        plan = told("plan", auto_file, *arguments)
        runs = next_runs(study, [])
        assert [row["run_id"] for row in plan["rows"]] == [run.config.run_id for run in runs]
        assert "precision fp32, as in runs/small/precision.json" in plan["timing"]


def test_plan_for_an_accelerator_is_in_bf16_unless_the_study_says_otherwise(auto_file, study, told):
    plan = told("plan", auto_file, "--accelerator", "h100-sxm")
    runs = next_runs(study.with_precision("bf16"), [])
    assert [row["run_id"] for row in plan["rows"]] == [run.config.run_id for run in runs]
    assert "precision bf16" in plan["timing"]


def test_commands_show_the_precision_that_a_study_has(
    auto_file, committed, monkeypatch, call, told
):
    speeds = machine(GAIN["fp32"]).speeds
    monkeypatch.setattr("isoflop.hardware.precision.measure_speeds", lambda *_: speeds)
    call("fit", auto_file)
    found = told("status", auto_file)
    assert {row["run_id"] for row in found["rows"]} >= {one.run_id for one in committed}
    assert len(told("costs", auto_file)) == 2


def test_a_single_run_in_a_slow_precision_is_warned_of(study, tmp_path, capsys, monkeypatch):
    speeds = machine(GAIN["fp32"]).speeds
    monkeypatch.setattr("isoflop.hardware.precision.measure_speeds", lambda *_: speeds)
    for precision, told in (("bf16", True), ("fp32", False)):
        config = next_runs(study.with_precision(precision), [])[0].config
        path = tmp_path / f"{precision}.json"
        path.write_text(config.model_dump_json())
        # The corpus is missing, so that nothing is trained.
        assert main(["train", str(path)]) == 2
        said = capsys.readouterr().err
        assert ("computes in bf16, which is 40 times as slow as fp32" in said) == told
        assert ('precision = "fp32" under [recipe]' in said) == told


@pytest.mark.parametrize(("faster", "dtypes"), [("fp32", {"fp32"}), ("bf16", {"fp32", "bf16"})])
def test_bench_measures_in_what_is_faster_here(study_file, capsys, monkeypatch, faster, dtypes):
    speeds = machine(GAIN[faster]).speeds
    monkeypatch.setattr("isoflop.hardware.precision.measure_speeds", lambda *_: speeds)
    asked = []

    def measure(groups, **_):
        asked.append({case.config.recipe.precision for group in groups for case in group})
        return BenchReport(rows=(), torch="0", machine="test")

    monkeypatch.setattr("isoflop.bench.bench_train", measure)
    assert main(["bench", "train"]) == 0
    assert f"precision {faster}: matrix products " in capsys.readouterr().err
    assert main(["bench", "train", "--dtype", "bf16"]) == 0
    assert asked == [{faster}, {"bf16"}]
    assert precision_here(None, 1) == faster
    assert set(precisions_here(None, 1)) == dtypes
    assert precisions_here(("bf16",), 1) == ("bf16",)
