"""How many runs share a CUDA device: by its memory, the machine's cores, and measured steps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from isoflop.hardware.cores import UsableCores
from isoflop.memory import estimate_memory
from isoflop.planning import PlannedRun, next_runs
from isoflop.sweep.local import sharing
from isoflop.sweep.local.pool import LocalPool
from isoflop.sweep.schedule.executor import Execution, Shift
from sweep_studies import BASELINE, ROUTED, Place, tiny

RUNS = next_runs(tiny(Path("corpus.txt"), BASELINE, ROUTED), []) * 6
EACH = sharing.OF_A_PROCESS + sharing.ROOM * max(
    estimate_memory(run.config).total_bytes for run in RUNS
)
SLOTS = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
"""Two devices."""

Picked = Callable[..., tuple[int, str, list[int]]]


@pytest.fixture
def picked(monkeypatch: pytest.MonkeyPatch) -> Picked:
    """What is picked on a device that is described, why no more, and what was tried."""

    def pick(
        speed: Callable[[int], float], free: float = 100.0 * EACH, cores: int = 64
    ) -> tuple[int, str, list[int]]:
        tried: list[int] = []

        def told(environments: list[dict[str, str]], prepare: object, *_: object) -> list[float]:
            assert all(one == SLOTS[0] for one in environments)
            if prepare is not sharing.stepping:
                return [free]
            tried.append(len(environments))
            return [speed(len(environments)) / len(environments)] * len(environments)

        monkeypatch.setattr(sharing, "told", told)
        monkeypatch.setattr(sharing, "usable_cores", lambda: UsableCores(cores, None))
        return *sharing.runs_per_device(RUNS, SLOTS, threads=1), tried

    return pick


@pytest.mark.parametrize(
    ("speed", "expected", "why", "tried"),
    [
        (lambda runs: 1.0, 1, "2 together are 1 times as fast", [1, 2]),
        (lambda runs: min(runs, 4), 4, "8 together are 1 times as fast", [1, 2, 4, 8]),
        (lambda runs: runs, 16, "16 are the most", [1, 2, 4, 8, 16]),
        (lambda runs: runs**0.1, 1, "2 together are 1.07 times as fast", [1, 2]),
    ],
    ids=["one fills it", "four fill it", "none fills it", "a gain too small"],
)
def test_runs_share_a_device_while_all_together_get_faster(
    picked: Picked, speed: Callable[[int], float], expected: int, why: str, tried: list[int]
) -> None:
    assert picked(speed) == (expected, why, tried)


def test_whole_steps_of_the_largest_run_and_their_processes_fit(picked: Picked) -> None:
    why = "more may not fit its memory"
    assert picked(float, free=4.0 * EACH)[:2] == (4, why)
    assert picked(float, free=4.0 * EACH - 1)[:2] == (2, why)
    assert picked(float, free=0.5 * EACH) == (1, why, [])


def test_each_run_has_its_cores(picked: Picked) -> None:
    assert picked(float, cores=8)[:2] == (4, "there are no more cores")
    assert picked(float, cores=2)[0] == 1


def test_what_cannot_be_measured_is_not_shared_and_is_told(picked: Picked) -> None:
    def fails(runs: int) -> float:
        if runs < 4:
            return runs
        raise ValueError("OutOfMemoryError: no")

    found = (2, "4 at a time could not be measured: OutOfMemoryError: no", [1, 2, 4])
    assert picked(fails) == found


def test_without_a_device_that_is_said() -> None:
    each, why = sharing.runs_per_device(RUNS, SLOTS, threads=1)
    assert each == 1
    assert why.startswith("what is free on the device could not be asked: ")


def test_processes_make_real_steps_at_the_same_time() -> None:
    rates = sharing.told([{}, {}], sharing.stepping, RUNS[0].config, 1, "cpu")
    assert len(rates) == 2
    assert all(rate > 0 for rate in rates)
    with pytest.raises(ValueError, match="RuntimeError"):
        sharing.told([{}, {}], sharing.stepping, RUNS[0].config, 1, "no such device")


@pytest.mark.parametrize(
    ("execution", "picks"),
    [
        (Execution(device="cuda"), True),
        (Execution(device="cuda", workers=3), False),
        (Execution(device="cuda", shift=Shift()), False),
        (Execution(), False),
    ],
)
def test_it_is_measured_where_nobody_said_it(execution: Execution, picks: bool) -> None:
    assert execution.picks_sharing == picks


def test_as_many_runs_go_as_were_picked(
    corpus: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Execution, "picks_sharing", True)
    monkeypatch.setattr(Execution, "slots", lambda one: [{}] * (one.workers or 2))
    monkeypatch.setattr("isoflop.sweep.running.runs_per_device", lambda *_, **__: (3, "so it is"))
    capacities = []

    class Watched(LocalPool):
        def start(self, run: PlannedRun, folder: Path) -> None:
            capacities.append(self.capacity)
            super().start(run, folder)

    monkeypatch.setattr("isoflop.sweep.running.LocalPool", Watched)
    outcome = place.run(tiny(corpus), workers=None)
    assert "tiny: 3 runs per device, as measured here" in place.said
    assert capacities == [6, 6, 6]
    assert (outcome.left, outcome.failed) == (0, 0)
