"""One run on disk: what it is, what was tried, what it left, and the state that follows."""

from pathlib import Path

import pytest
from one_run import CONFIG, OTHER, ROUTED

from given import ENVIRONMENT, record_of
from isoflop.config import RunRecord
from isoflop.runs import Attempt, RunFolder
from report import made_routed


def test_the_folder_of_another_run_or_of_none_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"holds run {CONFIG.run_id}, expected {OTHER.run_id}"):
        run.create(OTHER)
    assert run.config() == CONFIG
    assert run.config().run_id == run.path.name
    with pytest.raises(ValueError, match=r"no config\.json"):
        RunFolder(tmp_path).config()


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


def test_the_first_environment_stays_pinned_and_other_data_is_refused(run: RunFolder) -> None:
    later = ENVIRONMENT.model_copy(update={"torch": "2.14.0", "threads": 2})
    with run.claim():
        first = run.pin(ENVIRONMENT, "a" * 64)
        assert run.pin(later, "a" * 64) == first
        with pytest.raises(ValueError, match=f"{'a' * 64}.*{'b' * 64}.*start afresh"):
            run.pin(ENVIRONMENT, "b" * 64)
    assert RunFolder(run.path).pinned() == first
    assert first.differences(ENVIRONMENT) == {}
    assert first.differences(later) == {"torch": ("0", "2.14.0"), "threads": (1, 2)}


# --- attempts


def test_attempts_are_noted_those_too_that_fail_before_they_begin(run: RunFolder) -> None:
    assert run.attempts == 0
    with run.claim():
        run.end_attempt("failed", "no kernel")
        assert run.begin_attempt(5) == 2
        run.end_attempt("preempted")
        run.end_attempt("failed", "no data")
        assert run.begin_attempt(7) == 4
    again = RunFolder(run.path)
    assert again.attempts == 4
    assert again.attempts_made() == [
        Attempt(1, 0, "failed", "no kernel"),
        Attempt(2, 5, "preempted"),
        Attempt(3, 5, "failed", "no data"),
        Attempt(4, 7),
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


@pytest.mark.parametrize("name", ["evaluation", "sample"])
def test_what_the_model_was_asked_comes_back_and_may_be_written_anew(
    run: RunFolder, name: str
) -> None:
    write, read = getattr(run, f"write_{name}"), getattr(RunFolder(run.path), name)
    of_another = getattr(made_routed, name)(ROUTED)
    mine = of_another.model_copy(update={"run_id": CONFIG.run_id})
    assert read() is None
    with pytest.raises(RuntimeError, match="must be claimed"):
        write(mine)
    with run.claim():
        for value in (mine, mine.model_copy(update={"torch": "0"})):
            assert write(value).name == f"{name}.json"
            assert read() == value
        with pytest.raises(ValueError, match=f"the {name} is of {ROUTED.run_id}"):
            write(of_another)
    assert run.record() is None
    assert run.state() == "pending"
