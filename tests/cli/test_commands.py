"""The subcommands on a small study: what they print, write and return."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from given import record_of
from isoflop.bench import BenchReport
from isoflop.cli import main
from isoflop.config import TaskScore, TaskScores
from isoflop.config.load import load_study
from isoflop.costs import parameters
from isoflop.notation import significant
from isoflop.planning import next_runs
from isoflop.runs import RunStore, read_records, write_records
from isoflop.sweep import Folders, Outcome, Rebuilt
from isoflop.sweep.report import evidence_of
from isoflop.text import quoted
from isoflop.training import Interrupted


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


def test_run_stops_where_the_corpus_is_missing(study_file, tmp_path, call):
    assert "text.txt" in call("run", study_file, code=2).splitlines()[-1]
    assert not list(tmp_path.rglob("record.json"))
    study_file.write_text(study_file.read_text().replace("150000000000.0", "1e7"))
    for command in ("plan", "run"):
        assert "budgets_flops: 1e+07 FLOPs" in call(command, study_file, code=2)


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


def test_export_writes_records_and_speeds(study_file, committed, tmp_path, call, told):
    call("export", study_file, "--to", tmp_path / "other", code=2)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "bench.json").write_text('{"rows": []}')
    call("export", study_file)
    assert json.loads((tmp_path / "results" / "small" / "bench.json").read_text()) == {"rows": []}
    (written,) = (tmp_path / "results" / "small").glob("records.*")
    assert written.name == "records.jsonl.gz"
    assert len(read_records(written)) == len(committed)
    found = told("fit", written)
    assert set(found["variants"]) == {"every_token", "top_k 0.5 every 2"}


def trained(root, records):
    """Have the runs of records in their folders, with a checkpoint of 2 KB each."""
    for record in records:
        folder = RunStore(root / "runs" / "small").folder(record.run_id)
        with folder.claim():
            folder.create(record.config)
            folder.write_record(record)
        (folder.checkpoints / "step-00000001").mkdir(parents=True)
        (folder.checkpoints / "step-00000001" / "state").write_bytes(b"0" * 2000)


def test_clean_leaves_records(study_file, study, committed, tmp_path, call):
    trained(tmp_path, committed[:2])
    assert "freed 2 KB: checkpoints of 1 runs, 1 kept" in call("clean", study_file)
    assert "freed 2 KB: checkpoints of 1" in call("clean", study_file, "--everything")
    assert len(RunStore(tmp_path / "runs" / "small").records()) == 2


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


def test_scores_in_tasks_are_exported_and_read_from_there(
    study_file, study, committed, tmp_path, call
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
        assert f"wrote {kept.relative_to(tmp_path)}" in call("export", study_file)
        # Scores of another task are added to those that were committed.
        shutil.rmtree(folder.path)
    _, evidence = evidence_of(study, Folders.of(study), study_file)
    assert [one.task for one in evidence.tasks[run.run_id].scores] == ["arc", "hellaswag"]
    kept.write_text("{}")
    assert "holds no scores" in call("report", study_file, code=2)


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
    ("counts", "ended", "code"),
    [
        ((6, 0, 0, 0), {}, 0),
        ((5, 0, 1, 0), {}, 1),
        ((2, 0, 0, 4), {"interrupted": True}, 130),
        ((2, 0, 0, 4), {"interrupted": True, "terminated": True}, 143),
    ],
)
def test_run_trains_as_asked_and_tells_how_it_ended(
    study_file, monkeypatch, counts, ended, code, call
):
    asked = []

    def run_study(study, folders, execution):
        asked.append((execution.micro_batch_tokens, execution.recompute))
        return Outcome(*counts, **{"interrupted": False, **ended})

    monkeypatch.setattr("isoflop.sweep.run_study", run_study)
    shown = call("run", study_file, code=code)
    if code > 2:
        assert f"go on with: isoflop run {study_file}" in shown
    call("run", study_file, *HELD, code=code)
    assert asked == [("auto", "auto"), (2048, "selective")]


@pytest.fixture
def training(monkeypatch, committed):
    """Have `isoflop train` remember what it is asked and return or raise an outcome."""
    seen = SimpleNamespace(outcome=committed[0])

    def train(config, folder, **options):
        seen.config, seen.folder, seen.options = config, folder, options
        if isinstance(seen.outcome, Exception):
            raise seen.outcome
        return seen.outcome

    monkeypatch.setattr("isoflop.training.train", train)
    return seen


HELD = ("--micro-batch-tokens", "2048", "--recompute", "selective")


def test_train_of_a_study_takes_one_of_its_runs(study_file, study, training, call):
    assert "name one of the runs" in call("train", study_file, code=2)
    config = next_runs(study, [])[0].config
    run_id = config.run_id
    wrong = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    assert f"did you mean {run_id}?" in call("train", study_file, wrong, code=2)
    shown = call("train", study_file, run_id, "--threads", "1")
    assert "finished" in shown
    assert "validation loss 2.0000 nats/token" in shown
    assert training.config == config
    assert str(training.folder.path) == f"runs/small/runs/{run_id}"
    named = ("threads", "micro_batch_tokens", "recompute")
    assert [training.options[name] for name in named] == [1, "auto", "auto"]
    call("train", study_file, run_id, *HELD)
    assert [training.options[name] for name in named] == [None, 2048, "selective"]
    training.outcome = Interrupted("stopped at step 3 of 10")
    shown = call("train", study_file, run_id, code=130)
    assert f"go on with: isoflop train {study_file} {run_id}" in shown


def test_train_of_a_run_file_that_diverges_fails(tmp_path, training, capsys, committed):
    training.outcome = committed[-1]
    path = tmp_path / "run.json"
    path.write_text(committed[-1].config.model_dump_json())
    assert main(["train", str(path)]) == 1
    assert "diverged: loss nan at step 3" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("--micro-batch-tokens", "many"), ("--recompute", "all"), ("--micro-batch-tokens", "255")],
)
def test_what_a_step_cannot_hold_is_refused(study_file, study, capsys, command, option, value):
    which = [next_runs(study, [])[0].config.run_id] if command == "train" else []
    try:
        code = main([command, str(study_file), *which, option, value])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    said = capsys.readouterr().err
    assert value in said
    assert value != "255" or "expected at least the 256 tokens of a sequence" in said


def test_rebuild_tells_what_came_of_it(study_file, study, monkeypatch, capsys, tmp_path, call):
    runs = next_runs(study, [])
    recorded = [record_of(run.config, 2.0) for run in (runs[0], runs[-1])]
    write_records(tmp_path / "results" / "small" / "records.jsonl", recorded)
    done = []

    def rebuild(asked, folders, models, execution):
        assert execution.workers == 2
        done.append([Rebuilt(one, one.record) for one in models[: 2 - len(done)]])
        return done[-1], len(done[-1]) < 2

    monkeypatch.setattr("isoflop.sweep.rebuild", rebuild)
    assert main(["rebuild", str(study_file), "--workers", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}, run {one.run_id}: every loss is the recorded one, bit for bit"
        for name, one in zip(("Baseline", r"MoD [bold]\x1b[31m"), recorded, strict=True)
    ]
    # Interrupted, it tells how to go on.
    shown = call("rebuild", study_file, "--workers", "2", code=130)
    assert f"go on with: isoflop rebuild {study_file} --workers 2" in shown
    trained(tmp_path, recorded)
    shown = call("rebuild", study_file)
    assert f"Baseline: its checkpoint is in runs/small/runs/{recorded[0].run_id}" in shown
    assert "expected one of" in call("rebuild", study_file, "Mod", code=2)
