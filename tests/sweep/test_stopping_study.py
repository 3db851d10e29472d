"""A study that is stopped at any moment goes on with the same command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isoflop.runs import RunStore
from isoflop.sweep import status
from sweep_studies import LONGER, brief, train_study

PATIENCE_SECONDS = 300
SCRIPT = """
import sys
from pathlib import Path
from sweep_studies import LONGER, brief, train_study
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcome = train_study(
        brief(folder / "text.txt", budget=LONGER), folder / "study", folder / "cache",
        workers=2, checkpoint_seconds=0.1,
    )
    sys.exit(3 if outcome.interrupted else 0)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@contextmanager
def scheduler(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Train a study in another process, and leave it when runs are under way."""
    here = Path(__file__).parent
    script = folder / "train_study.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def under_way(store: RunStore) -> bool:
    """Return whether a run has a checkpoint and is not at its end."""
    return any(list(f.checkpoints.glob("step-*")) and not f.record() for f in store.folders())


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGINT,
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_the_same_call_goes_on(corpus: Path, tmp_path: Path, how: signal.Signals) -> None:
    study = brief(corpus, budget=LONGER)
    root = tmp_path / "study"
    store = RunStore(root)
    with scheduler(tmp_path) as process:
        wait_for(lambda: process.poll() is not None or under_way(store))
        assert process.poll() is None, process.communicate()[1]
        if how == signal.SIGKILL:
            process.kill()
        else:
            # As a terminal or a batch system does it: to every process of the group.
            os.killpg(process.pid, how)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        if how != signal.SIGKILL:
            assert process.returncode == 3
            assert "stopping" in said
            assert "Traceback" not in said
    # The workers let go, after a checkpoint, even where nobody told them to.
    wait_for(lambda: not any(folder.is_claimed() for folder in store.folders()))
    found = status(study, root)
    assert found.counts["preempted"] >= 1
    assert found.counts["failed"] == 0
    for folder in store.folders():
        assert "Traceback" not in (folder.path / "log.txt").read_text()
        rows, _ = folder.read_metrics()
        if rows and folder.record() is None:
            assert list(folder.checkpoints.glob(f"step-{rows[-1]['step']:08d}*"))
    outcome = train_study(study, root, tmp_path / "cache", workers=2)
    assert outcome.left == 0
    assert outcome.failed == 0
    for folder in store.folders():
        rows, corrupt = folder.read_metrics()
        assert [row["step"] for row in rows] == list(range(1, folder.config().steps + 1))
        assert corrupt == 0
