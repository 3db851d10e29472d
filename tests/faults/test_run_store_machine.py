"""The run store as a state machine: owners come, work, die at any moment, and files are damaged.

After every step: nothing committed is lost or changed, nothing is committed twice, final states are
final, one live owner at most, and each step of the metrics once and in order.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from given import record_of
from isoflop import checkpoint, storage
from isoflop.config import ModelConfig, RunConfig, RunRecord
from isoflop.runs import RunClaimed, RunFolder, RunStore, claim

MODEL = ModelConfig(vocabulary=256, width=8, blocks=2, heads=2, head_width=4, hidden=12)
STEPS = 6
FINAL = ("finished", "diverged", "failed")


def config_of(number: int) -> RunConfig:
    return RunConfig(model=MODEL, steps=STEPS, sequences_per_step=4, seed=number)


def outcome(config: RunConfig, state: str, attempts: int) -> RunRecord:
    reason = None if state == "finished" else "because"
    return record_of(config, state=state, reason=reason, attempts=attempts)


class Owner:
    """Who claims the run in a folder, as another process would, if nobody has it."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self._claim = ExitStack()
        try:
            self._claim.enter_context(self.folder.claim())
        except RunClaimed:
            self.claimed = False
        else:
            self.claimed = True
        self.log: Any = None

    def let_go(self) -> None:
        if self.log is not None:
            self.log.close()
        self._claim.close()

    def die(self) -> None:
        """End as a process that is killed does: its files are closed, and nothing else is done."""
        self.folder._files.let_go = os.close  # type: ignore[method-assign]
        self.let_go()


class RunStoreMachine(RuleBasedStateMachine):
    """Two runs; of each what must be on disk, as far as it was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="runs-"))
        self.configs = [config_of(number) for number in range(2)]
        store = RunStore(self.root)
        self.paths = [store.folder(config.run_id).path for config in self.configs]
        self.owners: dict[int, Owner] = {}
        self.began: dict[int, int] = {}
        self.step: dict[int, int] = {}
        self.saved: dict[int, set[int]] = {0: set(), 1: set()}
        self.committed: dict[int, bytes] = {}
        self.preempted: dict[int, bool] = {}

    def folder(self, run: int) -> RunFolder:
        """Return the run's folder as somebody new sees it, who knows the disk alone."""
        return RunFolder(self.paths[run])

    def teardown(self) -> None:
        for owner in self.owners.values():
            owner.die()
        shutil.rmtree(self.root)

    runs = st.integers(0, 1)

    @initialize()
    def submit(self) -> None:
        for run, config in enumerate(self.configs):
            self.folder(run).create(config)

    @rule(run=runs)
    def claim(self, run: int) -> None:
        """Another process tries to own the run: it does where nobody else does."""
        owner = Owner(self.paths[run])
        assert owner.claimed == (run not in self.owners)
        if owner.claimed:
            self.owners[run] = owner

    def _idle(self, run: int) -> bool:
        return run in self.owners and run not in self.began and run not in self.committed

    @precondition(lambda self: any(self._idle(run) for run in (0, 1)))
    @rule()
    def begin(self) -> None:
        """An owner goes on from the newest checkpoint."""
        run = next(run for run in (0, 1) if self._idle(run))
        step = checkpoint.newest_step(self.folder(run).checkpoints)
        assert step == max(self.saved[run], default=0)
        before = self.folder(run).attempts
        owner = self.owners[run]
        assert owner.folder.begin_attempt(step) == before + 1
        owner.log = owner.folder.open_metrics(step)
        self.began[run] = before + 1
        self.step[run] = step
        self.preempted[run] = False

    def _busy(self, run: int) -> bool:
        return run in self.began and run not in self.committed

    def _save(self, run: int) -> None:
        owner, step = self.owners[run], self.step[run]
        owner.log.sync()
        owner.folder.check_claim()
        target = owner.folder.checkpoints / f"step-{step:08d}"
        if not target.exists():
            storage.commit_folder(target, lambda new: (new / "state").write_text(str(step)))
        self.saved[run].add(step)

    @precondition(lambda self: any(self._busy(run) for run in (0, 1)))
    @rule(data=st.data(), saves=st.booleans(), then=st.sampled_from(["go on", "stop", *FINAL]))
    def progress(self, data: st.DataObject, saves: bool, then: str) -> None:
        """An owner makes a step; it may save, be preempted, or come to an end."""
        run = data.draw(st.sampled_from([run for run in (0, 1) if self._busy(run)]))
        if self.step[run] < STEPS:
            self.step[run] += 1
            self.owners[run].log.append({"step": self.step[run], "loss": 1.0})
        if saves or then == "stop":
            self._save(run)
        if then == "stop":
            owner = self._gone(run)
            owner.folder.end_attempt("preempted")
            owner.let_go()
            self.preempted[run] = True
        elif then in FINAL:
            self._commit(run, then)

    def _commit(self, run: int, state: str) -> None:
        record = outcome(self.configs[run], state, self.began[run])
        self.owners[run].folder.write_record(record)
        self.committed[run] = (self.paths[run] / "record.json").read_bytes()

    @precondition(lambda self: any(run in self.committed for run in self.owners))
    @rule(state=st.sampled_from(FINAL))
    def commit_again(self, state: str) -> None:
        """An outcome that is not the recorded one is refused."""
        run = next(run for run in self.owners if run in self.committed)
        with pytest.raises(ValueError, match="is recorded as"):
            self.owners[run].folder.write_record(outcome(self.configs[run], state, 99))

    def _gone(self, run: int) -> Owner:
        self.began.pop(run, None)
        return self.owners.pop(run)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """An owner is killed; in the middle of a commit: rows 2 and 5, and the power cuts."""
        self._gone(data.draw(st.sampled_from(sorted(self.owners)))).die()

    @rule(run=runs, name=st.sampled_from(["metrics.jsonl", "attempts.jsonl"]), tail=st.binary())
    def tear(self, run: int, name: str, tail: bytes) -> None:
        """A power cut left a part of a line at the end of a file."""
        path = self.paths[run] / name
        if run not in self.owners and path.exists():
            with path.open("ab") as file:
                file.write(b'{"attempt": 9' + tail.replace(b"\n", b""))

    @rule(run=runs)
    def leave_a_temporary(self, run: int) -> None:
        """A killed writer left a part of a file."""
        (self.paths[run] / f"{storage.TEMPORARY}record").write_text('{"run_id":')

    @invariant()
    def nothing_committed_is_lost_or_changed(self) -> None:
        for run in (0, 1):
            folder, path = self.folder(run), self.paths[run] / "record.json"
            if run in self.committed:
                assert path.read_bytes() == self.committed[run]
                record = folder.record()
                assert record is not None
                assert folder.state() == record.state
            else:
                assert not path.exists()
            for step in self.saved[run]:
                storage.verify_folder(folder.checkpoints / f"step-{step:08d}")

    @invariant()
    def states_follow_from_the_disk(self) -> None:
        for run in (0, 1):
            state = self.folder(run).state()
            if run in self.committed:
                assert state in FINAL
            elif run in self.owners:
                assert state == "running"
            elif self.preempted.get(run):
                assert state == "preempted"
            else:
                assert state in ("pending", "interrupted")

    @invariant()
    def no_step_is_told_twice(self) -> None:
        for run in (0, 1):
            rows, _ = self.folder(run).read_metrics()
            steps = [row["step"] for row in rows]
            assert steps == list(range(1, len(steps) + 1))
            assert len(steps) >= max(self.saved[run], default=0)


QUICK = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    # Shrinking takes minutes; the long test does it.
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def nobody_renews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.Claim, "_keep", lambda *_: None)


def test_the_run_store_keeps_what_it_was_given() -> None:
    run_state_machine_as_test(RunStoreMachine, settings=QUICK)


@pytest.mark.slow
def test_the_run_store_keeps_what_it_was_given_at_random() -> None:
    long = settings(
        QUICK,
        max_examples=60,
        stateful_step_count=50,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
    )
    run_state_machine_as_test(RunStoreMachine, settings=long)
