import itertools

import pytest
from measured_rows import kept_row

from given import small_model
from isoflop.bench import BenchReport, Case, bench_train, describe, study_group
from isoflop.bench import train as bench_module
from isoflop.bench.cases import prepare_step
from isoflop.bench.machine import clock_of
from isoflop.bench.measured import Ratio, mean_seconds
from isoflop.bench.train import BenchRow, verdicts
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
    monkeypatch.setattr(bench_module, "TURN_SECONDS", 0.0)


def test_a_row_is_the_arithmetic_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "prepare_step", prepare_step)
    config = tiny(routed=True)
    report = bench_train([[case("mod", routed=True)]], threads=1, seconds=0)
    (row,) = report.rows
    assert (row.variant, row.implementation, row.compiled) == ("mod", "isoflop", False)
    assert row.parameters == parameters(config.model).total
    assert row.flops_per_step == pytest.approx(24 * train_flops_per_token(config.model, 12))
    assert row.steps_per_second == pytest.approx(1 / row.step_seconds)
    assert row.achieved_flops == pytest.approx(row.flops_per_step / row.step_seconds)
    assert row.peak_flops == 1e12
    assert (row.width, row.blocks, row.heads) == (16, 2, 2)
    assert (row.sequence_length, row.sequences_per_step, row.vocabulary) == (12, 2, 256)
    assert (row.dtype, row.threads) == ("bf16", 1)
    assert row.rounds >= bench_module.LEAST_ROUNDS
    assert report.ratios == ()


def test_contenders_take_turns_after_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(bench_module, "prepare_step", lambda one: lambda: order.append(one.variant))
    bench_train([[case(name) for name in "abc"]], threads=1, seconds=0)
    warm_up = bench_module.WARM_UP + 1
    assert order[: 3 * warm_up] == ["a"] * warm_up + ["b"] * warm_up + ["c"] * warm_up
    assert order[3 * warm_up :] == list("abc") * bench_module.LEAST_ROUNDS


def test_medians_and_ratios_are_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # A slow phase of the machine hits both: the paired ratio does not move.
    seconds = {"a": itertools.cycle([1.0, 1.0, 7.0]), "b": itertools.cycle([4.0, 4.0, 28.0])}
    monkeypatch.setattr(bench_module, "prepare_step", lambda one: one.variant)
    monkeypatch.setattr(bench_module, "WARM_UP", 0)
    monkeypatch.setattr(bench_module, "mean_seconds", lambda step, *_: next(seconds[step]))
    report = bench_train([[case("a"), case("b")]], threads=1, seconds=0)
    assert [row.step_seconds for row in report.rows] == [1.0, 4.0]
    (ratio,) = report.ratios
    assert (ratio.name, ratio.reference) == ("b (eager)", "a (eager)")
    assert (ratio.low, ratio.speed_ratio, ratio.high) == (0.25, 0.25, 0.25)


def test_groups_are_compared_within_themselves_and_come_back_from_json() -> None:
    groups = [[case("a"), case("b")], [case("c"), case("d", routed=True)]]
    report = bench_train(groups, threads=1, seconds=0)
    assert "".join(row.variant for row in report.rows) == "abcd"
    assert [row.group for row in report.rows] == [0, 0, 1, 1]
    assert [(r.group, r.reference) for r in report.ratios] == [(0, "a (eager)"), (1, "c (eager)")]
    assert BenchReport.model_validate_json(report.model_dump_json()) == report
    text = "\n".join(describe(report))
    assert "BUSY" not in text
    assert "d (eager) is" in text


def test_a_busy_machine_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.bench.machine.busy", lambda: "other processes use 1.70 cores")
    with pytest.raises(ValueError, match=r"1\.70 cores.*wait until it is idle, or use --force"):
        bench_train([[case()]], threads=1, seconds=0)
    report = bench_train([[case()]], threads=1, force=True, seconds=0)
    assert report.model_dump(mode="json")["busy"] == "other processes use 1.70 cores"
    assert describe(report)[0].startswith("WARNING: measured on a BUSY machine")
    assert "1.70 cores" in describe(report)[0]


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


def test_threads_are_those_asked_for() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        bench_train([[case()]], threads=0, seconds=0)


def test_a_study_group_has_each_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.training.compiling.has_compiler", lambda _: True)
    monkeypatch.setattr("isoflop.training.compiling.compiling_fault", lambda _: None)
    small, large = tiny(budget=1e9), tiny(width=32, budget=1e14)
    again = small.model_copy(update={"seed": 5})
    group = study_group([("dense", small), ("dense", again), ("dense", large)])
    assert [(one.config.model.width, one.compiled) for one in group] == [(16, False), (32, True)]
    assert [one.compiled for one in study_group([("dense", large)], compiled=False)] == [False]
    with pytest.raises(ValueError, match="no models"):
        study_group([])


def row(variant: str = "dense", **changes: object) -> BenchRow:
    settings = {"variant": variant, "flops_per_step": 100.0, "width": 512, "sequence_length": 1024}
    return kept_row(BenchRow, "train", **{**settings, **changes})


HALF = {"variant": "MoD", "flops_per_step": 50.0}
PEER = {"implementation": "transformers"}


@pytest.mark.parametrize(
    ("changes", "speed_ratio", "expected", "held"),
    [
        ({**PEER, "compiled": False}, 0.99, 1.0, True),
        ({**PEER, "compiled": False}, 1.01, 1.0, False),
        (PEER, 0.71, 1.4, True),
        (PEER, 0.72, 1.4, False),
        (HALF, 1.79, 1.8, False),
        (HALF, 1.81, 1.8, True),
    ],
)
def test_the_peer_must_be_slower_and_routing_gain_what_its_flops_promise(
    changes: dict[str, object], speed_ratio: float, expected: float, held: bool
) -> None:
    *_, verdict = verdicts([row(), row(**changes)], [ratio(speed_ratio)])
    assert verdict.expected == pytest.approx(expected)
    assert verdict.measured == pytest.approx(
        1 / speed_ratio if "variant" not in changes else speed_ratio
    )
    assert verdict.held is held


def test_eager_steps_are_compared_with_the_peers_eager_ones() -> None:
    eager = row(compiled=False)
    peer = row(**PEER, compiled=False)
    (verdict,) = verdicts([row(), eager, peer], [ratio(0.8), ratio(0.5)])
    assert verdict.claim == "dense (eager) is fast enough beside dense (transformers, eager)"
    assert (verdict.measured, verdict.expected) == (pytest.approx(1.6), 1.0)


@pytest.mark.parametrize(
    ("dtype", "share", "held"),
    [("bf16", 0.46, True), ("bf16", 0.44, False), ("fp32", 0.61, True), ("fp32", 0.59, False)],
)
def test_a_wide_dense_step_reaches_a_share_of_the_best_product(
    dtype: str, share: float, held: bool
) -> None:
    speeds = {"dtype": dtype, "achieved_flops": 1e12 * share, "peak_flops": 1e12}
    verdict, _ = verdicts([row(**speeds), row(**PEER, **speeds)], [ratio(0.5)])
    assert (verdict.measured, verdict.held) == (pytest.approx(share), held)
    narrow = {"width": 256, **speeds}
    assert len(verdicts([row(**narrow), row(**PEER, **narrow)], [ratio(0.5)])) == 1


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ({"sequence_length": 512}, {**HALF, "sequence_length": 512}),
        ({"width": 128}, {**HALF, "width": 128}),
        ({}, {**HALF, "width": 768}),
        ({}, {"variant": "MoD", "compiled": False}),
    ],
)
def test_small_and_unlike_contenders_are_held_to_nothing(
    ours: dict[str, object], other: dict[str, object]
) -> None:
    assert verdicts([row(**ours), row(**other)], [ratio(1.0)]) == ()


def ratio(speed_ratio: float) -> Ratio:
    return Ratio(group=0, name="b", reference="a", speed_ratio=speed_ratio, low=0.1, high=9.0)
