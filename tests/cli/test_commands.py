"""The subcommands on a small study: what they print, write and return."""

import json
import shutil
from types import SimpleNamespace

import pytest

from given import record_of
from isoflop.bench import BenchReport
from isoflop.cli import main
from isoflop.config import TaskScore, TaskScores
from isoflop.config.load import load_study
from isoflop.costs import parameters
from isoflop.planning import next_runs
from isoflop.runs import RunStore, read_records, write_records
from isoflop.sweep import Folders, Outcome, Rebuilt
from isoflop.sweep.report import evidence_of
from isoflop.training import Interrupted


def test_run_stops_where_the_corpus_is_missing(study_file, tmp_path, call):
    assert "text.txt" in call("run", study_file, code=2).splitlines()[-1]
    assert not list(tmp_path.rglob("record.json"))
    study_file.write_text(study_file.read_text().replace("150000000000.0", "1e7"))
    for command in ("plan", "run"):
        assert "budgets_flops: 1e+07 FLOPs" in call(command, study_file, code=2)
    study_file.write_text(study_file.read_text().replace("1e7", "1e7, 1e40"))
    told = "budgets_flops: 1e+40 FLOPs put the sizes of 'Baseline' around "
    assert told in call("costs", study_file, code=2)


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
    call("export", study_file, "--results", tmp_path / "other", code=2)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "bench.json").write_text('{"rows": []}')
    call("export", study_file)
    assert json.loads((tmp_path / "results" / "small" / "bench.json").read_text()) == {"rows": []}
    (written,) = (tmp_path / "results" / "small").glob("records.*")
    assert written.name == "records.jsonl.gz"
    assert len(read_records(written)) == len(committed)
    found = told("fit", written)
    assert set(found["variants"]) == {"every_token", "top_k 0.5 every 2"}
    # Elsewhere it is the same, though nothing lies in the study's own folder.
    shutil.rmtree(tmp_path / "runs")
    call("export", study_file, "--to", "other")
    for name in ("records.jsonl.gz", "bench.json", "study.json"):
        assert (tmp_path / "other/small" / name).read_bytes() == written.with_name(
            name
        ).read_bytes()


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


@pytest.mark.parametrize(
    ("command", "option", "value", "expected"),
    [
        ("train", "--threads", "0", "at least 1"),
        ("train", "--rank-timeout", "nan", "more than 0, at most 1e9"),
        ("train", "--rank-timeout", "-1.0", "more than 0, at most 1e9"),
        ("work", "--workers", "0", "at least 1"),
        ("work", "--workers", "1000000000000", "at least 1, at most 1e6"),
        ("train", "--threads", "100000", "at least 1, at most 4096"),
        ("run", "--memory-gib", "inf", "more than 0, at most 1e9"),
        ("plan", "--memory-gib", "1e+300", "more than 0, at most 1e9"),
    ],
)
def test_amounts_of_nothing_are_refused_at_once(command, option, value, expected, call):
    shown = call(command, "missing.toml", option, value, code=2)
    assert f"{option} is {value}; expected {expected}" in shown


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
