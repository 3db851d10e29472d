import itertools

import pytest
from measured_rows import train_row as row

from given import small_model
from isoflop.bench import BenchReport, Case, bench_train, describe, measured, study_group
from isoflop.bench import train as bench_module
from isoflop.bench.cases import prepare_step
from isoflop.bench.machine import clock_of
from isoflop.bench.measured import mean_seconds
from isoflop.bench.train import verdicts
from isoflop.config import DataConfig, EveryToken, RunConfig, TopK
from isoflop.costs import parameters, train_flops_per_token


def tiny(*, routed: bool = False, width: int = 16, budget: float | None = None) -> RunConfig:
    return RunConfig(
        model=small_model(width=width, depth=TopK(capacity=0.25) if routed else EveryToken()),
        data=DataConfig(sequence_length=12),
        steps=1,
        sequences_per_step=2,
        budget_flops=budget,
    )


def case(variant: str = "dense", **settings: bool) -> Case:
    return Case(variant=variant, config=tiny(**settings), compiled=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.bench.machine.busy", lambda: None)
    monkeypatch.setattr(bench_module, "gemm_peak", lambda *_, clock: 1e12)
    monkeypatch.setattr(bench_module, "prepare_step", lambda one: lambda: None)
    monkeypatch.setattr(measured, "TURN_SECONDS", 0.0)


def test_a_row_is_the_arithmetic_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "prepare_step", prepare_step)
    config = tiny(routed=True)
    report = bench_train([[case("mod", routed=True)]], threads=1, seconds=0)
    (row,) = report.rows
    assert (row.name, row.width, row.blocks, row.dtype) == ("mod (eager)", 16, 2, "bf16")
    assert row.parameters == parameters(config.model).total
    assert row.flops_per_step == pytest.approx(24 * train_flops_per_token(config.model, 12))
    assert row.steps_per_second == pytest.approx(1 / row.step_seconds)
    assert row.achieved_flops == pytest.approx(row.flops_per_step / row.step_seconds)
    assert row.of_peak == row.achieved_flops / 1e12
    assert row.rounds >= bench_module.LEAST_ROUNDS
    assert BenchReport.model_validate_json(report.model_dump_json()) == report


def test_contenders_take_turns_after_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(bench_module, "prepare_step", lambda one: lambda: order.append(one.variant))
    bench_train([[case(name) for name in "abc"]], threads=1, seconds=0)
    warm_up = bench_module.WARM_UP + 1
    assert order[: 3 * warm_up] == ["a"] * warm_up + ["b"] * warm_up + ["c"] * warm_up
    assert order[3 * warm_up :] == list("abc") * bench_module.LEAST_ROUNDS


def test_medians_and_ratios_are_of_the_rounds_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    # A slow phase of the machine hits both: the paired ratio does not move.
    seconds = {"a": itertools.cycle([1.0, 1.0, 7.0]), "b": itertools.cycle([4.0, 4.0, 28.0])}
    monkeypatch.setattr(bench_module, "prepare_step", lambda one: one.variant)
    monkeypatch.setattr(bench_module, "WARM_UP", 0)
    monkeypatch.setattr(bench_module, "steady", lambda step, *_: lambda: next(seconds[step]))
    report = bench_train([[case("a"), case("b")], [case("b")]], threads=1, seconds=0)
    assert [row.step_seconds for row in report.rows[:2]] == [1.0, 4.0]
    ratios = [(row.group, row.low, row.speed_ratio, row.high) for row in report.rows]
    assert ratios == [(0, 1, 1, 1), (0, 0.25, 0.25, 0.25), (1, 1, 1, 1)]
    text = "\n".join(describe(report))
    assert "BUSY" not in text
    assert "b (eager)" in text


def test_a_busy_machine_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.bench.machine.busy", lambda: "other processes use 1.70 cores")
    with pytest.raises(ValueError, match=r"1\.70 cores.*wait until it is idle, or use --force"):
        bench_train([[case()]], threads=1, seconds=0)
    report = bench_train([[case()]], threads=1, force=True, seconds=0)
    assert report.model_dump(mode="json")["busy"] == "other processes use 1.70 cores"
    warning = "WARNING: measured on a BUSY machine, do not quote: other processes use 1.70 cores"
    assert describe(report)[0] == warning


def test_what_is_missing_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "find_spec", lambda name: None)
    monkeypatch.setattr(bench_module, "compiling_fault", lambda: "there is no C++ compiler")
    peer = case().model_copy(update={"implementation": "transformers"})
    compiled = case("quick").model_copy(update={"compiled": True})
    report = bench_train([[case(), peer, compiled]], threads=1, seconds=0)
    assert [row.variant for row in report.rows] == ["dense"]
    assert any("transformers is not installed" in note for note in report.notes)
    assert any("C++ compiler" in note for note in report.notes)
    with pytest.raises(ValueError, match="nothing to measure: transformers"):
        bench_train([[peer]], threads=1, seconds=0)


@pytest.mark.parametrize(("threads", "expected"), [(1, 0.0), (2, 1.0)])
def test_one_thread_is_timed_by_its_process(
    monkeypatch: pytest.MonkeyPatch, threads: int, expected: float
) -> None:
    monkeypatch.setattr("time.process_time", lambda: 0.0)
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)
    assert mean_seconds(lambda: None, 1, clock_of(threads)) == expected


def test_a_study_group_has_each_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.training.compiling.has_compiler", lambda _: True)
    monkeypatch.setattr("isoflop.training.compiling.compiling_fault", lambda _: None)
    small, large = tiny(budget=1e9), tiny(width=32, budget=1e14)
    again = small.model_copy(update={"seed": 5})
    group = study_group([("dense", small), ("dense", again), ("dense", large)])
    assert [(one.config.model.width, one.compiled) for one in group] == [(16, False), (32, True)]
    with pytest.raises(ValueError, match="no models"):
        study_group([])


EAGER = {"compiled": False}
HALF = {"variant": "MoD", "flops_per_step": 50.0}
PEER = {"implementation": "transformers"}
NARROW = {"width": 256}


@pytest.mark.parametrize(
    ("ours", "other", "expected"),
    [
        # Ours over the peer, compiled and eager.
        (NARROW, {**NARROW, **PEER, "speed_ratio": 0.5}, [(2, 1.4)]),
        ({"speed_ratio": 0.8, **EAGER}, {**PEER, **EAGER, "speed_ratio": 0.5}, [(1.6, 1.0)]),
        # A wide step reaches a share of the best product.
        ({"achieved_flops": 450.0}, {**PEER, **EAGER}, [(0.45, 0.45)]),
        ({"dtype": "fp32", "achieved_flops": 450.0}, {**PEER, **EAGER}, [(0.45, 0.6)]),
        # Routing gains what its FLOPs promise, where steps are large enough.
        (NARROW, {**HALF, **NARROW, "speed_ratio": 1.79}, [(1.79, 1.8)]),
        ({"width": 128}, {**HALF, "width": 128}, []),
        ({**NARROW, "sequence_length": 512}, {**HALF, **NARROW, "sequence_length": 512}, []),
        # Other shapes, ways and groups are held to nothing.
        (NARROW, {**HALF, **NARROW, **EAGER}, []),
        (NARROW, {**PEER, **NARROW, "group": 1}, []),
        (NARROW, {**PEER, "width": 128}, []),
    ],
)
def test_bars(
    ours: dict[str, object], other: dict[str, object], expected: list[tuple[float, float]]
) -> None:
    found = verdicts([row(**ours), row(**other)])
    assert [(one.measured, one.expected) for one in found] == [
        (pytest.approx(measured), pytest.approx(least)) for measured, least in expected
    ]
    for one in found:
        assert one.line.startswith("held: " if one.measured >= one.expected else "NOT HELD: ")
