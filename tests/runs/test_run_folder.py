"""One run on disk: what it is, what was tried, what it left, and the state that follows."""

from pathlib import Path

import pytest
from one_run import CONFIG, OTHER, record_of

from given import ENVIRONMENT
from isoflop.config import (
    DecisionMeasures,
    Measures,
    RunConfig,
    RunEvaluation,
    RunRecord,
    SampledToken,
    TextSample,
)
from isoflop.estimate import Estimate
from isoflop.runs import Attempt, RunFolder

# --- configuration and pins


def test_the_configuration_comes_back_with_the_same_run_id(run: RunFolder) -> None:
    assert run.config() == CONFIG
    assert run.config().run_id == run.path.name
    run.create(CONFIG)
    assert run.config() == CONFIG


def test_a_folder_of_another_run_is_refused(run: RunFolder) -> None:
    with pytest.raises(ValueError, match=f"holds run {CONFIG.run_id}, expected {OTHER.run_id}"):
        run.create(OTHER)
    assert run.config() == CONFIG


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"model": {"width": "wide"}}', r"config\.json is not a valid RunConfig: model\."),
        ("[]", "RunConfig: the whole"),
    ],
)
def test_a_malformed_configuration_is_told_in_one_line(
    run: RunFolder, text: str, message: str
) -> None:
    (run.path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        run.config()
    assert "\n" not in str(caught.value)
    assert str(run.path / "config.json") in str(caught.value)


def test_a_folder_without_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        RunFolder(tmp_path).config()


def test_the_first_environment_stays_pinned(run: RunFolder) -> None:
    later = ENVIRONMENT.model_copy(update={"torch": "2.14.0", "threads": 2})
    with run.claim():
        first = run.pin(ENVIRONMENT, "a" * 64)
        assert first.differences(ENVIRONMENT) == {}
        again = RunFolder(run.path)
        assert again.pinned() == first
        assert run.pin(later, "a" * 64) == first
    assert first.differences(later) == {"torch": ("0", "2.14.0"), "threads": (1, 2)}


def test_changed_data_is_refused_with_both_hashes(run: RunFolder) -> None:
    with run.claim():
        run.pin(ENVIRONMENT, "a" * 64)
        with pytest.raises(ValueError, match=f"{'a' * 64}.*{'b' * 64}.*start afresh"):
            run.pin(ENVIRONMENT, "b" * 64)
    pinned = run.pinned()
    assert pinned is not None
    assert pinned.data_sha256 == "a" * 64


# --- attempts


def test_attempts_are_noted_across_processes(run: RunFolder) -> None:
    assert run.attempts == 0
    for number, step in enumerate((0, 7, 7), start=1):
        with run.claim():
            assert run.begin_attempt(step) == number
    with run.claim():
        run.end_attempt("failed", "no memory")
    again = RunFolder(run.path)
    assert again.attempts == 3
    assert again.attempts_made() == [
        Attempt(1, 0),
        Attempt(2, 7),
        Attempt(3, 7, "failed", "no memory"),
    ]


def test_an_attempt_that_fails_before_it_begins_is_one(run: RunFolder) -> None:
    with run.claim():
        run.end_attempt("failed", "no kernel")
        run.begin_attempt(5)
        run.end_attempt("preempted")
        run.end_attempt("failed", "no data")
    assert run.attempts_made() == [
        Attempt(1, 0, "failed", "no kernel"),
        Attempt(2, 5, "preempted"),
        Attempt(3, 5, "failed", "no data"),
    ]


def test_a_torn_or_damaged_line_of_attempts_loses_no_other(run: RunFolder) -> None:
    with run.claim():
        run.begin_attempt(0)
        run.begin_attempt(3)
    path = run.path / "attempts.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"attempt": "2"}\n[]\n' + second + b'{"attempt":3,"beg')
    with pytest.warns(UserWarning, match="corrupt lines left out: 2"), run.claim():
        assert run.begin_attempt(4) == 3
    with pytest.warns(UserWarning, match="corrupt lines left out: 2"):
        assert [one.step for one in run.attempts_made()] == [0, 3, 4]


def test_attempts_go_on_from_the_number_that_was_kept_before(run: RunFolder) -> None:
    (run.path / "attempts.json").write_text('{"attempts": 4}')
    assert run.attempts == 4
    assert run.state() == "interrupted"
    with run.claim():
        assert run.begin_attempt(9) == 5
    assert run.attempts == 5
    (run.path / "attempts.jsonl").unlink()
    (run.path / "attempts.json").write_text('{"attempts": "3"}')
    with pytest.raises(ValueError, match=r"attempts\.json is malformed"):
        _ = run.attempts


# --- record and state


def test_the_state_follows_from_what_is_on_disk(run: RunFolder) -> None:
    assert run.state() == "pending"
    with run.claim():
        run.begin_attempt(0)
        assert run.state() == "running"
    assert run.state() == "interrupted"
    with run.claim():
        run.end_attempt("preempted")
        assert run.state() == "running"
    assert run.state() == "preempted"
    with run.claim():
        run.begin_attempt(4)
    assert run.state() == "interrupted"
    with run.claim():
        run.end_attempt("failed", "no memory")
    assert run.state() == "interrupted"
    with run.claim():
        run.write_record(record_of(CONFIG, state="diverged", reason="loss is NaN at step 3"))
        assert run.state() == "diverged"
    assert run.state() == "diverged"


@pytest.mark.parametrize("trace", ["checkpoint", "metrics.jsonl", "pinned.json"])
def test_any_trace_of_a_start_is_an_interrupted_run(run: RunFolder, trace: str) -> None:
    (run.path / trace).mkdir()
    assert run.state() == "interrupted"


def test_a_record_comes_back(run: RunFolder) -> None:
    assert run.record() is None
    with run.claim():
        run.write_record(record_of(CONFIG))
    assert RunFolder(run.path).record() == record_of(CONFIG)


def test_a_run_is_recorded_once(run: RunFolder) -> None:
    with run.claim():
        run.write_record(record_of(CONFIG))
        run.write_record(record_of(CONFIG))
        with pytest.raises(ValueError, match="finished already"):
            run.write_record(record_of(CONFIG, state="failed", reason="no"))
    assert run.record() == record_of(CONFIG)


@pytest.mark.parametrize("record", [record_of(OTHER), record_of(OTHER, run_id=CONFIG.run_id)])
def test_the_record_of_another_run_is_refused(run: RunFolder, record: RunRecord) -> None:
    with run.claim(), pytest.raises(ValueError, match="the record is of"):
        run.write_record(record)
    assert run.record() is None


def test_a_damaged_record_is_never_taken_for_an_unfinished_run(run: RunFolder) -> None:
    with run.claim():
        run.write_record(record_of(CONFIG))
    path = run.path / "record.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"record\.json is not valid JSON"):
        run.state()


def evaluation_of(config: RunConfig, loss: float) -> RunEvaluation:
    recorded = record_of(config).evaluations[0]
    one = DecisionMeasures(
        evaluation=recorded,
        loss=Estimate(value=loss, low=loss - 0.5, high=loss + 0.5),
        bits_per_byte=Estimate(value=1.5 * loss),
    )
    return RunEvaluation(
        run_id=config.run_id,
        corpus=("sotu", "python"),
        data_sha256="d" * 64,
        sequence_length=256,
        documents=3,
        torch="0",
        measures=Measures(decisions=(one,)),
        token_texts={0: "<|end|>", 233: "\\xe9"},
    )


def test_a_sample_comes_back_and_may_be_written_anew(run: RunFolder) -> None:
    assert run.sample() is None
    for text in ("\x1b[31m\u2028", "other"):
        made = TextSample(
            run_id=CONFIG.run_id,
            routed_blocks=(),
            decision="every_token",
            cap=None,
            temperature=1.0,
            top_k=None,
            top_p=1.0,
            min_p=0.0,
            seed=0,
            prompt=(),
            tokens=(SampledToken(id=7, text=text, processed=()),),
            reason="length",
            torch="0",
        )
        with pytest.raises(RuntimeError, match="must be claimed"):
            run.write_sample(made)
        with run.claim():
            assert run.write_sample(made).name == "sample.json"
        assert RunFolder(run.path).sample() == made
    other = made.model_copy(update={"run_id": "0" * 12})
    with run.claim(), pytest.raises(ValueError, match="the sample is of 000000000000"):
        run.write_sample(other)
    assert run.record() is None


def test_an_evaluation_comes_back_and_may_be_written_anew(run: RunFolder) -> None:
    assert run.evaluation() is None
    for loss in (2.0, 1.0):
        with run.claim():
            assert run.write_evaluation(evaluation_of(CONFIG, loss)).name == "evaluation.json"
        assert RunFolder(run.path).evaluation() == evaluation_of(CONFIG, loss)
    assert run.record() is None
    assert run.state() == "pending"


def test_an_evaluation_of_another_run_or_without_the_claim_is_refused(run: RunFolder) -> None:
    with run.claim(), pytest.raises(ValueError, match="the evaluation is of"):
        run.write_evaluation(evaluation_of(OTHER, 1.0))
    with pytest.raises(RuntimeError, match="must be claimed"):
        RunFolder(run.path).write_evaluation(evaluation_of(CONFIG, 1.0))
    assert run.evaluation() is None


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "pinned.json",
        "attempts.json",
        "attempts.jsonl",
        "metrics.jsonl",
        "record.json",
        "checkpoint",
    ],
)
def test_symbolic_links_in_the_folder_are_refused(
    run: RunFolder, tmp_path: Path, name: str
) -> None:
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(tmp_path)
    reads = {
        "config.json": run.config,
        "pinned.json": run.pinned,
        "attempts.json": lambda: run.attempts,
        "attempts.jsonl": run.attempts_made,
        "metrics.jsonl": run.read_metrics,
        "record.json": run.record,
        "checkpoint": lambda: run.checkpoints,
    }
    with pytest.raises(ValueError, match=f"{name} is a symbolic link"):
        reads[name]()
