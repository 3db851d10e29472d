"""`isoflop costs` and `isoflop plan` of a small study: what they tell before training."""

import json
from functools import partial

import pytest

from isoflop.cli import main
from isoflop.config.load import load_study
from isoflop.notation import significant
from isoflop.planning import next_runs
from isoflop.text import quoted


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """A machine whose every run goes at 1e9 FLOP/s, since measuring takes seconds."""
    monkeypatch.setattr("isoflop.training.measure_speed", lambda configs: lambda config: 1e9)


def test_costs_of_a_single_run(study, tmp_path, call, told):
    path = tmp_path / "run.json"
    path.write_text(next_runs(study, [])[0].config.model_dump_json())
    (row,) = told("costs", path)
    assert row["budget_flops"] == 1.5e11
    assert row["train_flops"]["causal"] == pytest.approx(3 * row["forward_flops"]["causal"])
    assert "Parameters" in call("costs", path)


def test_plan_lists_every_first_run_where_the_corpus_is_missing(study_file, study, call):
    shown = call("plan", study_file)
    for run in next_runs(study, []):
        assert run.config.run_id in shown
    assert "text.txt" in shown
    assert "epochs are not known" in shown


def test_plan_tells_epochs_where_the_corpus_is_at_hand(study_file, tmp_path, call, told):
    lines = (f"line {i} of a text that says little\n" for i in range(3000))
    (tmp_path / "text.txt").write_text("".join(lines))
    plan = told("plan", study_file)
    assert all(row["epochs"] > 1 for row in plan["rows"])
    shown = call("plan", study_file)
    assert "reads its training data" in shown
    assert shown.count("reads its training data") == 1


def test_preparing_a_corpus_is_told_on_standard_error(study_file, capsys, monkeypatch):
    monkeypatch.setattr("isoflop.data.preparation.SECONDS_BETWEEN", 0.0)
    study_file.with_name("text.txt").write_text(" ".join(map(str, range(3000))))
    arguments = ("plan", study_file, "--accelerator", "h100-sxm")
    for told in (True, False):
        assert main([str(one) for one in arguments]) == 0
        captured = capsys.readouterr()
        assert ("preparing text.txt: tokenising, 13.9K tokens, " in captured.err) == told
        assert "tokenising" not in captured.out


def test_plan_for_an_accelerator_tells_times(study_file, told):
    arguments = ("plan", study_file, "--accelerator", "h100-sxm", "--utilisation")
    half, quarter = told(*arguments, "0.5"), told(*arguments, "0.25")
    assert half["rows"][0]["seconds"] == pytest.approx(1.5e11 / (0.5 * 989e12), rel=0.01)
    assert quarter["elapsed_seconds"] == pytest.approx(2 * half["elapsed_seconds"])
    assert "h100-sxm at 25% utilisation, which is assumed" in quarter["timing"]


def test_plan_goes_by_the_utilisation_that_was_measured(study_file, study, told):
    row = {"sequence_length": study.data.sequence_length, "dtype": "fp32", "kind": "dense"}
    row |= {"parameters": 10**8, "device": "NVIDIA H200", "achieved_flops": 0.6 * 989e12}
    bench = study_file.with_name("results") / "gpu" / "train.json"
    bench.parent.mkdir(parents=True)
    bench.write_text(json.dumps({"rows": [row]}))
    (routed,) = [one.name for one in study.variants if one.depth.kind != "every_token"]
    measured = "60% utilisation, measured on NVIDIA H200 (results/gpu/train.json) and "
    plan = partial(told, "plan", study_file, "--accelerator")
    assumed, found = plan("h200", "--utilisation", "0.4"), plan("h200")
    assert f"{measured}40% utilisation for {quoted(routed)}, which is assumed" in found["timing"]
    for before, now in zip(assumed["rows"], found["rows"], strict=True):
        faster = now["steps_per_second"] / before["steps_per_second"]
        # 60% are of full squares, 40% of the causal half in which the study counts.
        assert faster == 1 if before["variant"] == routed else 1.1 < faster < 1.499
    # Of another device only where that is asked for.
    assert "h100-sxm at 40% utilisation, which is assumed" in plan("h100-sxm")["timing"]
    given = plan("h100-sxm", "--bench", bench, "--utilisation", "0.1")
    assert "measured on NVIDIA H200" in given["timing"]
    assert "10% utilisation for" in given["timing"]


def test_plan_tells_gpu_hours_and_their_cost(study_file, call, told):
    arguments = ("plan", study_file, "--accelerator", "h100-sxm", "--price-per-hour", "2.5")
    plan = told(*arguments)
    assert plan["cost"] == {name: 2.5 * hours for name, hours in plan["gpu_hours"].items()}
    shown = call(*arguments)
    assert "steps/s   GPU h" in shown
    # Next to nothing.
    assert "GPU hours" not in shown
    much_larger(study_file)
    plan, shown = told(*arguments), call(*arguments)
    hours, cost = plan["gpu_hours"], plan["cost"]
    assert f"GPU hours: {significant(hours['first'], 4)} for the first, " in shown
    assert f"; at 2.5 an hour {significant(cost['first'], 4)}, " in shown
    assert "cost" not in told(*arguments[:-2])


def test_plan_for_this_machine_goes_by_its_measured_speed(study_file, told):
    plan = told("plan", study_file, "--workers", "2")
    assert plan["rows"][0]["seconds"] == pytest.approx(150, rel=0.01)
    assert plan["elapsed_seconds"] == pytest.approx(3 * 150, rel=0.01)
    assert "measured here" in plan["timing"]
    much_larger(study_file)
    huge = told("plan", study_file)
    assert huge["rows"][0]["seconds"] is None
    assert "name an --accelerator" in huge["timing"]


def much_larger(study_file):
    """Have the study ask for what takes a cluster."""
    text = study_file.read_text().replace("150000000000.0", "6e18").replace("60000.0", "1e8")
    study_file.write_text(text)


@pytest.fixture
def scaling_file(study_file, study):
    values = study.model_dump(mode="json")
    sizes = [{"blocks": 2, "width": 16}, {"blocks": 2, "width": 24}]
    for key in ("budgets_flops", "grid", "replicate", "challenger", "matched_shapes"):
        del values[key]
    values |= {"scaling": {"models": sizes}, "learning_rate_check": [0.5]}
    path = study_file.with_name("scaling.json")
    path.write_text(json.dumps(values))
    return path


def test_plan_of_a_scaling_study_tells_rates_that_may_be_added(scaling_file, call):
    values = json.loads(scaling_file.read_text()) | {"learning_rate_check_added": 2}
    scaling_file.write_text(json.dumps(values))
    shown = call("plan", scaling_file)
    added = 2 * len(values["variants"])
    assert f"First: {len(next_runs(load_study(scaling_file), []))} runs" in shown
    assert f"At most: {added} more" in shown
    assert f"{added} checks" in shown
    assert "usually" not in shown
    assert "names its sizes" in call("bench", "train", scaling_file, code=2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--accelerator", "abacus"), "accelerator is 'abacus'; expected one of"),
        (("--accelerator", "h200", "--utilisation", "40"), "utilisation is 40"),
        (("--workers", "0"), "workers is 0; expected at least 1"),
        (("--price-per-hour", "2"), "--price-per-hour is given without --accelerator"),
        (("--accelerator", "h200", "--price-per-hour", "nan"), "--price-per-hour is nan; expected"),
        (("--accelerator", "h200", "--bench", "none.json"), "none.json: No such file"),
    ],
)
def test_plan_refuses_impossible_options(study_file, arguments, expected, call):
    assert expected in call("plan", study_file, *arguments, code=2)
