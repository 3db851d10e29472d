"""Where runs are that somebody trains now, in status and logs."""

import json
import math
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from given import ENVIRONMENT
from isoflop.cli import main
from isoflop.data import prepare
from isoflop.planning import achieved_flops, next_runs
from isoflop.runs import RunStore
from isoflop.sweep import running, status
from isoflop.sweep.schedule.executor import LEAVING_SECONDS, Execution, Shift
from isoflop.sweep.schedule.scheduler import Scheduler
from sweep_studies import Place, starts, tiny


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = tiny(tmp_path / "text.txt")
    (tmp_path / "study.json").write_text(made.model_dump_json())
    return made


def test_status_and_logs_tell_where_a_run_is(study, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path("runs/tiny")
    run = next_runs(study, [])[0].config
    folder = RunStore(root).folder(run.run_id)
    with folder.claim():
        folder.create(run)
        folder.begin_attempt(0)
        with folder.open_metrics(0) as metrics:
            for step in (1, 2):
                metrics.append({"step": step, "loss": 2.0, "seconds": 0.5})
        (folder.path / "log.txt").write_text("a line\n\x1b[31m of torch\n")
        os.utime(
            folder.path / "claim-1",
            ns=(0, os.stat(folder.path / "claim-1").st_mtime_ns - 60 * 10**9),
        )
        (row,) = [one for one in status(study, root).rows if one.at]
        assert (row.at.host, row.at.pid) == (socket.gethostname(), os.getpid())
        assert 60 <= row.at.silent_seconds < 90
        assert row.at.tokens_per_second == run.tokens_per_step / 0.5
        assert row.at.seconds_left == (run.steps - 2) * 0.5
        assert main(["status", "study.json"]) == 0
        shown = capsys.readouterr().out
        assert "last sign" in shown
        assert str(os.getpid()) in shown
        assert main(["status", "study.json", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [("at" in one, one["state"]) for one in rows].count((True, "running")) == 1
        assert main(["logs", "study.json", run.run_id[:8]]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "a line",
            "\\x1b[31m of torch",
            "attempt 1 from step 0: running",
            f"{run.run_id}: running",
        ]
        folder.end_attempt("failed", "no such\nkernel")
    assert main(["logs", "study.json", run.run_id, "--follow"]) == 0
    assert "attempt 1 from step 0: failed: no such\\nkernel" in capsys.readouterr().out
    assert main(["logs", "study.json", "nothing"]) == 2
    assert "has an id that starts with 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "working"), [(None, None), (3600, 3600 - LEAVING_SECONDS), (60, 45)]
)
def test_a_worker_leaves_before_its_limit(
    seconds: float | None, working: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = Shift(seconds)
    assert shift.working_seconds == working
    # Its time runs while the corpus is prepared, too.
    begun = replace(shift, begun=shift.begun - 1000)
    for name in ("_ask_the_grid", "_look"):
        monkeypatch.setattr(Scheduler, name, Mock())
    scheduler = Scheduler(*[Mock()] * 5, Execution(shift=begun), "")
    left = math.inf if working is None else begun.begun + working
    assert scheduler.leave_at == left


def test_a_worker_of_another_version_is_refused_or_told_of(
    corpus: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny(corpus)
    monkeypatch.setattr(running, "environment_apart", lambda _: ENVIRONMENT)
    run = next_runs(study, [])[0].config
    folder = place.store.folder(run.run_id)
    sha256 = prepare(study.data, place.cache).sha256
    with folder.claim():
        folder.create(run)
        folder.pin(ENVIRONMENT.model_copy(update={"torch": "0.1", "threads": 7}), sha256)
    with pytest.raises(ValueError, match=r"begun with torch 0\.1, here .*--mixed"):
        place.run(study, shift=Shift(), workers=1)
    assert starts(place.cache) == []
    outcome = place.run(study, shift=Shift(mixed=True, until_idle=True), workers=1)
    assert outcome.left == 0
    # The longest first.
    began = [place.store.folder(one).config() for one in starts(place.cache)[:3]]
    flops = [achieved_flops(config) for config in began]
    assert flops == sorted(flops, reverse=True)


@pytest.mark.parametrize(
    ("visible", "devices", "workers", "expected"),
    [
        (None, 8, None, "0 1 2 3 4 5 6 7"),
        ("2,GPU-7", 2, None, "2 GPU-7"),
        ("2,GPU-7", 2, 5, "2 GPU-7 2 GPU-7 2"),
        (None, 8, 3, "0 1 2"),
    ],
)
def test_each_device_has_a_run_and_more_of_them_share(
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    devices: int,
    workers: int | None,
    expected: str,
) -> None:
    monkeypatch.setitem(
        sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: devices))
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    slots = Execution(device="cuda", workers=workers).slots()
    assert [one["CUDA_VISIBLE_DEVICES"] for one in slots] == expected.split()
