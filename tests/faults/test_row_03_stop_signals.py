"""Row 3. Fault: SIGTERM, as a batch system sends it, or Ctrl-C; in a step, and in a save.

Injected: the signal, by a step or a save of `isoflop train` to itself, and sent to `isoflop run`.
Expected: a whole checkpoint, state `preempted`, one line with the command that goes on, exit code
143 or 130; that command gives what the undisturbed run gives.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from one_tiny_run import Tiny
from processes import command, ended, others, start, wait_for

from isoflop import storage
from isoflop.cli import main
from isoflop.runs import RunStore
from outcomes import assert_whole
from sweep_studies import LONGER, brief, write_corpus

if TYPE_CHECKING:
    from torch import Tensor

    from isoflop.training.step import StepResult, Trainer

TRAIN = ("train", "run.json", "--threads", "1")
RUN = ("run", "study.json", "--workers", "2")


def train_and_be_stopped(folder: Path, where: str, number: int) -> int:
    """Run `isoflop train`, to which its third step or its third save sends a signal."""
    import isoflop.training
    from isoflop.training.step import Trainer

    often = 0.0 if where == "save" else 30.0
    isoflop.training.train = functools.partial(isoflop.training.train, checkpoint_seconds=often)
    replace, step, saves = os.replace, Trainer.step, []

    def replace_signalled(old: Path, new: Path) -> None:
        if Path(new).name.startswith("step-"):
            saves.append(new)
            if len(saves) == 3:
                os.kill(os.getpid(), number)
        replace(old, new)

    def step_signalled(trainer: Trainer, tokens: Tensor, index: int, rate: float) -> StepResult:
        if index == 2:
            os.kill(os.getpid(), number)
        return step(trainer, tokens, index, rate)

    if where == "save":
        os.replace = replace_signalled
    else:
        Trainer.step = step_signalled
    return command(folder, *TRAIN)


@pytest.mark.parametrize(
    ("where", "number", "code"),
    [("step", signal.SIGTERM, 143), ("step", signal.SIGINT, 130), ("save", signal.SIGTERM, 143)],
)
def test_row_03_train_saves_and_tells_how_to_go_on(
    tmp_path: Path, where: str, number: int, code: int
) -> None:
    tiny = Tiny.of(tmp_path, steps=12)
    (tmp_path / "run.json").write_text(tiny.config.model_dump_json())
    folder = RunStore(tmp_path / "runs" / "single").folder(tiny.config.run_id)
    said = tmp_path / "said.txt"
    assert ended(start(train_and_be_stopped, tmp_path, where, number, said=said)) == code
    assert folder.state() == "preempted"
    (saved, *_) = sorted(folder.checkpoints.iterdir(), reverse=True)
    storage.verify_folder(saved)
    step = int(saved.name.removeprefix("step-"))
    # What asked to stop is heard after the step under way, or after the one that follows the save.
    assert step == (3 if where == "step" else 4)
    assert [row["step"] for row in folder.read_metrics()[0]] == list(range(1, step + 1))
    assert not list(folder.path.rglob(storage.TEMPORARY + "*"))
    last = said.read_text().splitlines()[-1]
    assert last.endswith("; go on with: isoflop train run.json --threads 1")
    assert "Traceback" not in said.read_text()
    # The command that the line names, and the run as if nothing had happened.
    assert ended(start(command, tmp_path, *last.rpartition("go on with: isoflop ")[2].split())) == 0
    tiny.assert_undisturbed(folder)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_row_03_a_study_is_preempted_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
    word: str,
) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), budget=LONGER)
    (tmp_path / "study.json").write_text(study.model_dump_json())
    store = RunStore(tmp_path / "runs" / "tiny")
    said = tmp_path / "said.txt"
    process = start(command, tmp_path, *RUN, said=said)
    wait_for(lambda: any(len(folder.read_metrics()[0]) > 2 for folder in store.folders()))
    # As a terminal or a batch system does it: to every process of the group.
    for pid in (process.pid, *others(process)):
        os.kill(pid, number)
    assert ended(process) == code
    hint = f"isoflop: {word}; go on with: isoflop run study.json --workers 2"
    assert said.read_text().splitlines()[-1] == hint
    assert "Traceback" not in said.read_text()
    monkeypatch.chdir(tmp_path)
    assert main(["status", "study.json", "--json"]) == 0
    states = [row["state"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert "preempted" in states
    assert not {"running", "interrupted", "failed"} & set(states)
    assert_whole(store)
    assert ended(start(command, tmp_path, *RUN)) == 0
    assert {folder.state() for folder in store.folders()} == {"finished"}
    assert_whole(store)
