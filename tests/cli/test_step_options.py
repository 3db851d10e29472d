"""How much of a step is held at a time, as `isoflop run` and `isoflop train` are told."""

import pytest

from isoflop.cli import main
from isoflop.planning import next_runs
from isoflop.sweep import Outcome

OPTIONS = ["--micro-batch-tokens", "2048", "--recompute", "selective"]


def test_a_study_is_trained_as_asked(study_file, monkeypatch, capsys):
    asked = []

    def run_study(study, folders, execution):
        asked.append((execution.micro_batch_tokens, execution.recompute))
        return Outcome(finished=0, diverged=0, failed=0, left=0, interrupted=False)

    monkeypatch.setattr("isoflop.sweep.run_study", run_study)
    assert main(["run", str(study_file), *OPTIONS]) == 0
    assert main(["run", str(study_file)]) == 0
    assert asked == [(2048, "selective"), ("auto", "auto")]


def test_a_run_is_trained_as_asked(study_file, study, monkeypatch, capsys):
    run_id, asked = next_runs(study, [])[0].config.run_id, {}

    def train(config, folder, **options):
        asked.update(options)
        raise ValueError("enough")

    monkeypatch.setattr("isoflop.training.train", train)
    assert main(["train", str(study_file), run_id, *OPTIONS]) == 2
    assert (asked["micro_batch_tokens"], asked["recompute"]) == (2048, "selective")
    assert main(["train", str(study_file), run_id]) == 2
    assert (asked["micro_batch_tokens"], asked["recompute"]) == ("auto", "auto")


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize("tokens", ["0", "-1", "255"])
def test_less_than_a_sequence_is_refused_in_a_line(study_file, study, capsys, command, tokens):
    run_id = next_runs(study, [])[0].config.run_id
    which = [run_id] if command == "train" else []
    assert main([command, str(study_file), *which, f"--micro-batch-tokens={tokens}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"is {tokens}; expected at least the 256 tokens of a sequence" in line


@pytest.mark.parametrize(
    ("option", "value"), [("--micro-batch-tokens", "many"), ("--recompute", "all")]
)
@pytest.mark.parametrize("command", ["run", "train"])
def test_what_is_no_choice_is_refused(study_file, capsys, command, option, value):
    with pytest.raises(SystemExit) as ended:
        main([command, str(study_file), option, value])
    assert ended.value.code == 2
    assert value in capsys.readouterr().err
