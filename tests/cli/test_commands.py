"""The subcommands on a small study: what they print, write and return."""

import json
import shutil

import pytest

from given import record_of
from isoflop.bench import BenchReport
from isoflop.cli import main
from isoflop.config import RunConfig, TaskScore, TaskScores
from isoflop.config.load import load_study
from isoflop.costs import forward_flops, parameters
from isoflop.notation import significant
from isoflop.planning import next_runs
from isoflop.runs import RunStore, read_records, write_records
from isoflop.sweep import Folders, Outcome, Rebuilt
from isoflop.sweep.report import evidence_of
from isoflop.text import quoted


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """A machine whose every run goes at 1e9 FLOP/s, since measuring takes seconds."""
    monkeypatch.setattr("isoflop.training.measure_speed", lambda configs: lambda config: 1e9)


def test_costs_as_json_are_the_cost_models(study_file, told):
    rows = told("costs", study_file)
    assert rows[0]["name"] == "Baseline"
    for row in rows:
        model = RunConfig.model_validate(
            {"model": row["model"], "steps": 1, "sequences_per_step": 1}
        ).model
        assert row["parameters"] == parameters(model).model_dump()
        for convention, parts in row["forward_parts"].items():
            flops = forward_flops(model, row["sequence_length"], convention)
            assert row["forward_flops"][convention] == flops.per_token
            assert sum(parts.values()) == pytest.approx(flops.per_token)
            assert row["train_flops"][convention] == pytest.approx(3 * flops.per_token)


def test_costs_of_a_single_run(study, tmp_path, call, told):
    path = tmp_path / "run.json"
    path.write_text(next_runs(study, [])[0].config.model_dump_json())
    (row,) = told("costs", path)
    assert row["budget_flops"] == 1.5e11
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


def test_plan_for_an_accelerator_tells_times(study_file, call):
    arguments = ("plan", study_file, "--json", "--accelerator", "h100-sxm", "--utilisation")
    half = json.loads(call(*arguments, "0.5"))
    quarter = json.loads(call(*arguments, "0.25"))
    assert half["rows"][0]["seconds"] == pytest.approx(1.5e11 / (0.5 * 989e12), rel=0.01)
    assert quarter["elapsed_seconds"] == pytest.approx(2 * half["elapsed_seconds"])
    assert "h100-sxm at 25% utilisation, which is assumed" in quarter["timing"]


def test_plan_goes_by_the_utilisation_that_was_measured(study_file, study, call):
    row = {"sequence_length": study.data.sequence_length, "dtype": "fp32", "kind": "dense"}
    row |= {"parameters": 10**8, "device": "NVIDIA H200", "achieved_flops": 0.6 * 989e12}
    bench = study_file.with_name("results") / "gpu" / "train.json"
    bench.parent.mkdir(parents=True)
    bench.write_text(json.dumps({"rows": [row]}))
    (routed,) = [one.name for one in study.variants if one.depth.kind != "every_token"]
    told = "60% utilisation, measured on NVIDIA H200 (results/gpu/train.json) and "

    def plan(*arguments):
        found = call("plan", study_file, "--json", "--accelerator", *arguments)
        return json.loads(found)

    assumed, found = plan("h200", "--utilisation", "0.4"), plan("h200")
    assert f"{told}40% utilisation for {quoted(routed)}, which is assumed" in found["timing"]
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
    study_file.write_text(study_file.read_text().replace("150000000000.0", "6e18"))
    study_file.write_text(study_file.read_text().replace("60000.0", "1e8"))
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
    study_file.write_text(study_file.read_text().replace("150000000000.0", "6e18"))
    study_file.write_text(study_file.read_text().replace("60000.0", "1e8"))
    huge = told("plan", study_file)
    assert huge["rows"][0]["seconds"] is None
    assert "name an --accelerator" in huge["timing"]


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


def test_steps_of_a_scaling_study_are_not_timed(scaling_file, call):
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


def test_a_budget_too_small_for_a_step_is_told_by_plan_and_run(study_file, call):
    study_file.write_text(study_file.read_text().replace("150000000000.0", "1e7"))
    for command in ("plan", "run"):
        assert "budgets_flops: 1e+07 FLOPs" in call(command, study_file, code=2)


def test_run_stops_where_the_corpus_is_missing(study_file, tmp_path, call):
    assert "text.txt" in call("run", study_file, code=2).splitlines()[-1]
    assert not list(tmp_path.rglob("record.json"))


def test_status_before_and_after_training(study_file, committed, call, told):
    before = call("status", study_file, "--results", "elsewhere")
    assert "small: 6 pending" in before
    assert f"isoflop run {study_file}" in before
    after = call("status", study_file)
    assert "5 finished" in after
    assert "1 diverged" in after
    assert rf"{committed[-1].run_id}: loss nan at step 3 \x1b[31m" in after
    found = told("status", study_file)
    assert len(found["rows"]) >= 6
    assert found["complete"] is False


def test_export_writes_the_records_it_knows(study_file, committed, capsys, tmp_path, call, told):
    assert main(["export", str(study_file), "--to", str(tmp_path / "other")]) == 2
    capsys.readouterr()
    call("export", study_file)
    (written,) = (tmp_path / "results" / "small").glob("records.*")
    assert written.name == "records.jsonl.gz"
    assert len(read_records(written)) == len(committed)
    found = told("fit", written)
    assert set(found["variants"]) == {"every_token", "top_k 0.5 every 2"}


def test_clean_leaves_records(study_file, study, committed, tmp_path, call):
    store = RunStore(tmp_path / "runs" / "small")
    for record in committed[:2]:
        folder = store.folder(record.run_id)
        with folder.claim():
            folder.create(record.config)
            folder.write_record(record)
        folder.checkpoints.mkdir()
        (folder.checkpoints / "state").write_bytes(b"0" * 2000)
    assert "freed 2 KB: checkpoints of 1 runs, 1 kept" in call("clean", study_file)
    assert "freed 2 KB: checkpoints of 1" in call("clean", study_file, "--everything")
    assert len(store.records()) == 2


def test_report_says_where_the_page_lies(study_file, committed, monkeypatch, tmp_path, call):
    seen = {}

    def write_report(study, evidence, out):
        seen["evidence"] = evidence
        return out / "index.html"

    monkeypatch.setattr("isoflop.sweep.report.write_report", write_report)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    speed = {"variant": "a", "parameters": 1, "flops_per_step": 1, "steps_per_second": 2}
    (tmp_path / "runs" / "small" / "bench.json").write_text(json.dumps({"rows": [speed]}))
    assert "page: runs/small/report/index.html" in call("report", study_file)
    evidence = seen["evidence"]
    assert len(evidence.records) == len(evidence.variant_of) == 6
    assert evidence.speeds[0].steps_per_second == 2
    assert all(left.state == "pending" for left in evidence.missing)


def test_export_takes_measured_speeds_along(study_file, committed, tmp_path, call):
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "bench.json").write_text('{"rows": []}')
    call("export", study_file)
    assert json.loads((tmp_path / "results" / "small" / "bench.json").read_text()) == {"rows": []}


def test_scores_in_tasks_are_exported_and_read_from_there(
    study_file, study, committed, capsys, tmp_path
):
    run = committed[0]
    folder = RunStore(tmp_path / "runs" / "small").folder(run.run_id)
    kept = tmp_path / "results" / "small" / "tasks.json"
    for task in ("arc", "hellaswag"):
        with folder.claim():
            folder.create(run.config)
            folder.write_record(run)
            score = TaskScore(task=task, metric="acc", value=0.25, decision="every_token")
            folder.add_scores(TaskScores(run_id=run.run_id, scores=(score,), lm_eval="0.4.9"))
        assert f"wrote {kept.relative_to(tmp_path)}" in output(capsys, "export", study_file)
        # Scores of another task are added to those that were committed.
        shutil.rmtree(folder.path)
    _, evidence = evidence_of(study, Folders.of(study), study_file)
    assert [one.task for one in evidence.tasks[run.run_id].scores] == ["arc", "hellaswag"]
    kept.write_text("{}")
    assert "holds no scores" in output(capsys, "report", study_file, code=2)


class Measured:
    """Stands in for measuring: remembers what it was asked."""

    def __init__(self, monkeypatch):
        self.groups = None
        self.options = {}
        monkeypatch.setattr("isoflop.bench.bench_train", self)

    def __call__(self, groups, **options):
        self.groups, self.options = groups, options
        return BenchReport(rows=(), torch="0", machine="test")


def test_bench_train_of_a_study_measures_its_numbered_models(
    study_file, study, monkeypatch, tmp_path, call
):
    measured = Measured(monkeypatch)
    assert "singles out no model yet" in call(
        "bench", "train", study_file, "--results", "elsewhere", code=2
    )
    by_size = sorted(next_runs(study, [])[:3], key=lambda run: parameters(run.config.model).total)
    losses = (2.0, 1.8, 1.9)
    records = [record_of(r.config, loss) for r, loss in zip(by_size, losses, strict=True)]
    write_records(tmp_path / "results" / "small" / "records.jsonl", records)
    assert main(["bench", "train", str(study_file), "--force"]) == 0
    assert measured.options["force"] is True
    assert measured.options["threads"] == 1
    (group,) = measured.groups
    assert by_size[1].config.model in [case.config.model for case in group]
    written = tmp_path / "runs" / "small" / "bench.json"
    assert {case.config.recipe.precision for case in group} == {"fp32"}
    written.unlink()
    # In another precision than the runs' it is no speed of theirs.
    assert main(["bench", "train", str(study_file), "--dtype", "bf16"]) == 0
    (group,) = measured.groups
    assert {case.config.recipe.precision for case in group} == {"bf16"}
    assert not written.exists()


def test_bench_train_of_a_league_measures_every_variant_at_its_best(
    study_file, monkeypatch, tmp_path
):
    others = [{"name": "Block", "attention": {"kind": "block", "block_size": 4, "top_k": 2}}]
    others += [{"name": "GELU", "feed_forward": {"kind": "gelu"}}]
    told = json.loads(study_file.read_text())
    study_file.write_text(json.dumps(told | {"variants": [{"name": "Plain"}, *others]}))
    runs = next_runs(load_study(study_file), [])
    losses = {run.config.run_id: 2.0 - 0.1 * i for i, run in enumerate(runs)}
    records = [record_of(run.config, losses[run.config.run_id]) for run in runs]
    write_records(tmp_path / "results" / "small" / "records.jsonl", records)
    measured = Measured(monkeypatch)
    assert main(["bench", "train", str(study_file), "--force"]) == 0
    best = {run.variant: run.config.model for run in runs}  # the last of each has the lowest loss
    assert [{case.variant: case.config.model for case in group} for group in measured.groups] == [
        best
    ]


def test_bench_train_without_a_study_measures_standard_shapes(study_file, monkeypatch, call):
    measured = Measured(monkeypatch)
    shown = call("bench", "train", "--json")
    assert json.loads(shown)["rows"] == []
    assert len(measured.groups) == 2
    assert measured.options["force"] is False


def test_report_without_records_says_what_to_do(study_file, call):
    for command in ("report", "fit"):
        said = call(command, study_file, code=2)
        assert f"train it first: isoflop run {study_file}" in said


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(finished=6, diverged=1, failed=0, left=0, interrupted=False), 0),
        (Outcome(finished=5, diverged=0, failed=1, left=0, interrupted=False), 1),
        (Outcome(finished=2, diverged=0, failed=0, left=4, interrupted=True), 130),
        (
            Outcome(finished=2, diverged=0, failed=0, left=4, interrupted=True, terminated=True),
            143,
        ),
    ],
)
def test_run_tells_how_it_ended(study_file, monkeypatch, outcome, code, call):
    monkeypatch.setattr("isoflop.sweep.run_study", lambda *_, **__: outcome)
    shown = call("run", study_file, code=code)
    if code > 2:
        assert f"go on with: isoflop run {study_file}" in shown


def test_train_needs_to_know_which_run(study_file, study, call):
    assert "name one of the runs" in call("train", study_file, code=2)
    run_id = next_runs(study, [])[0].config.run_id
    wrong = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    assert f"did you mean {run_id}?" in call("train", study_file, wrong, code=2)


def test_train_of_a_study_uses_the_studys_folder(study_file, study, monkeypatch, committed, call):
    seen = {}

    def train(config, folder, **options):
        seen.update(options, config=config, folder=folder)
        return committed[0]

    monkeypatch.setattr("isoflop.training.train", train)
    config = next_runs(study, [])[0].config
    shown = call("train", study_file, config.run_id, "--threads", "1")
    assert "finished" in shown
    assert "validation loss 2.0000 nats/token" in shown
    assert seen["config"] == config
    assert str(seen["folder"].path) == f"runs/small/runs/{config.run_id}"
    assert seen["threads"] == 1


def test_train_of_a_run_file_that_diverges_fails(study, tmp_path, monkeypatch, capsys, committed):
    monkeypatch.setattr("isoflop.training.train", lambda *_, **__: committed[-1])
    path = tmp_path / "run.json"
    path.write_text(committed[-1].config.model_dump_json())
    assert main(["train", str(path)]) == 1
    assert "diverged: loss nan at step 3" in capsys.readouterr().out


def test_an_interrupted_train_tells_how_to_go_on(study_file, study, monkeypatch, call):
    from isoflop.training import Interrupted

    def train(*_, **__):
        raise Interrupted("stopped at step 3 of 10")

    monkeypatch.setattr("isoflop.training.train", train)
    run_id = next_runs(study, [])[0].config.run_id
    shown = call("train", study_file, run_id, code=130)
    assert f"go on with: isoflop train {study_file} {run_id}" in shown


def test_rebuild_tells_the_time_and_how_models_compare(
    study_file, study, monkeypatch, capsys, tmp_path, call
):
    runs = next_runs(study, [])
    recorded = [record_of(run.config, 2.0) for run in (runs[0], runs[-1])]
    write_records(tmp_path / "results" / "small" / "records.jsonl", recorded)
    seen = {}

    def rebuild(asked, folders, models, execution):
        seen.update(workers=execution.workers, models=models)
        other = record_of(models[1].record.config, 2.125)
        environment = other.environment.model_copy(update={"torch": "9"})
        made = [
            Rebuilt(models[0], models[0].record),
            Rebuilt(models[1], other.model_copy(update={"environment": environment})),
        ]
        return made[: seen.get("done", 2)], "done" in seen

    monkeypatch.setattr("isoflop.sweep.rebuild", rebuild)
    assert main(["rebuild", str(study_file), "--workers", "2"]) == 0
    equal, differing = capsys.readouterr().out.splitlines()
    assert equal == (
        f"Baseline, run {recorded[0].run_id}: every loss is the recorded one, bit for bit"
    )
    assert differing == (
        rf"MoD [bold]\x1b[31m, run {recorded[1].run_id}: losses differ from the recorded ones by "
        "at most 0.12 nats per token; changed since: torch 0 -> 9"
    )
    assert seen["workers"] == 2

    # Interrupted, it tells how to go on.
    seen["done"] = 1
    shown = call("rebuild", study_file, "--workers", "2", code=130)
    assert f"go on with: isoflop rebuild {study_file} --workers 2" in shown

    for record in recorded:
        folder = RunStore(tmp_path / "runs" / "small").folder(record.run_id)
        with folder.claim():
            folder.create(record.config)
            folder.write_record(record)
        (folder.checkpoints / "step-00000001").mkdir(parents=True)
    shown = call("rebuild", study_file)
    assert f"Baseline: its checkpoint is in runs/small/runs/{recorded[0].run_id}" in shown
    assert "expected one of" in call("rebuild", study_file, "Mod", code=2)
