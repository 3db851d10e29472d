"""How many runs share a CUDA device: by its memory, the machine's cores, and measured speed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from isoflop.config import RunConfig
from isoflop.hardware.cores import UsableCores
from isoflop.memory import estimate_memory
from isoflop.planning import PlannedRun, next_runs
from isoflop.sweep.local import probes
from isoflop.sweep.local.pool import LocalPool
from isoflop.sweep.schedule.executor import Execution, Shift
from sweep_studies import Place, tiny

RUNS = next_runs(tiny(Path("corpus.txt")), []) * 12
STEP = max(estimate_memory(run.config).total_bytes for run in RUNS)
FREE = 100 * (STEP + probes.OF_A_PROCESS)
SLOTS = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
"""Two devices."""

Speed = Callable[[int], float | None]


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[int]]]:
    """What is picked on a device that is described, and how many were tried at a time."""

    def picked(speed: Speed, free: object = float(FREE), cores: int = 64) -> tuple[int, list[int]]:
        tried: list[int] = []

        def measured(
            configs: Sequence[RunConfig], slots: Sequence[Mapping[str, str]], **_: object
        ) -> list[float] | None:
            assert all(one == SLOTS[0] for one in slots)
            tried.append(len(slots))
            each = speed(len(slots))
            return None if each is None else [each] * len(configs)

        monkeypatch.setattr(probes, "_answers", lambda *_: [free])
        monkeypatch.setattr(probes, "measured_speeds", measured)
        monkeypatch.setattr(probes, "usable_cores", lambda: UsableCores(cores, None))
        return probes.runs_per_device(RUNS, SLOTS, threads=1), tried

    return picked


@pytest.mark.parametrize(
    ("speed", "expected", "tried"),
    [
        (lambda runs: 1e12 / runs, 1, [1, 2]),
        (lambda runs: 1e12 / max(1, runs / 4), 4, [1, 2, 4, 8]),
        (lambda runs: 1e12, 16, [1, 2, 4, 8, 16]),
        (lambda runs: 1e12 / runs**0.9, 1, [1, 2]),
    ],
    ids=["one fills it", "four fill it", "none fills it", "a gain too small"],
)
def test_runs_share_a_device_while_all_together_get_faster(
    sharing: Callable[..., tuple[int, list[int]]], speed: Speed, expected: int, tried: list[int]
) -> None:
    assert sharing(speed) == (expected, tried)


def test_whole_steps_of_the_largest_run_and_their_processes_fit(
    sharing: Callable[..., tuple[int, list[int]]],
) -> None:
    each = STEP + probes.OF_A_PROCESS
    assert sharing(lambda _: 1e12, free=4.0 * each)[0] == 4
    assert sharing(lambda _: 1e12, free=4.0 * each - 1)[0] == 2
    assert sharing(lambda _: 1e12, free=0.5 * each) == (1, [])


def test_each_run_has_its_cores(sharing: Callable[..., tuple[int, list[int]]]) -> None:
    assert sharing(lambda _: 1e12, cores=8)[0] == 4
    assert sharing(lambda _: 1e12, cores=2)[0] == 1


def test_what_cannot_be_measured_is_not_shared(
    sharing: Callable[..., tuple[int, list[int]]],
) -> None:
    assert sharing(lambda _: 1e12, free="RuntimeError: no CUDA")[0] == 1
    assert sharing(lambda _: None)[0] == 1
    assert sharing(lambda runs: 1e12 if runs < 4 else None)[0] == 2


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
    monkeypatch.setattr(Execution, "slots", lambda one: [{}] * (one.workers or 1))
    monkeypatch.setattr("isoflop.sweep.running.runs_per_device", lambda *_, **__: 3)
    capacities = []

    class Watched(LocalPool):
        def start(self, run: PlannedRun, folder: Path) -> None:
            capacities.append(self.capacity)
            super().start(run, folder)

    monkeypatch.setattr("isoflop.sweep.running.LocalPool", Watched)
    outcome = place.run(tiny(corpus), workers=None)
    assert "tiny: 3 runs per device" in place.said
    assert capacities == [3, 3, 3]
    assert (outcome.left, outcome.failed) == (0, 0)
