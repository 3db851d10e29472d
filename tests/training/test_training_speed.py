import math

import pytest

from given import small_model
from isoflop.config import DataConfig, EveryToken, RandomK, RunConfig, TopK
from isoflop.training import measure_speed, speed


def run(width: int, *, depth: object = None, blocks: int = 6, length: int = 16) -> RunConfig:
    return RunConfig(
        model=small_model(
            width=width, blocks=blocks, hidden=2 * width, depth=depth or EveryToken()
        ),
        data=DataConfig(sequence_length=length),
        steps=1,
        sequences_per_step=2,
    )


def test_speed_follows_the_measured_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def by_width(probe: RunConfig, seconds: float, device: str) -> float:
        measured.append(probe.model.width)
        return float(probe.model.width)

    monkeypatch.setattr(speed, "_measure", by_width)
    runs = [run(width) for width in (32, 16, 64, 24, 48)]
    expected = measure_speed(runs)
    assert measured == [16, 32, 64]
    assert [expected(run(width)) for width in (16, 32, 64)] == [16.0, 32.0, 64.0]
    assert 16 < expected(run(24)) < 32
    # Beyond what was measured nothing is extrapolated.
    assert expected(run(8)) == 16.0
    assert expected(run(128)) == 64.0
    with pytest.raises(ValueError, match="depth 'top_k' and sequences of 16"):
        expected(run(16, depth=TopK(capacity=0.5)))


def test_each_kind_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_measure", lambda probe, *_: 1.0 + len(probe.model.routed_blocks))
    routed = run(16, depth=TopK(capacity=0.5, every=3), blocks=9)
    expected = measure_speed([run(16), routed])
    assert expected(run(16)) == 1.0
    # Three blocks of nine, so one of every three, stay routed.
    assert expected(routed) == 2.0


def test_unaffordable_models_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(
        speed, "_measure", lambda probe, *_: measured.append(probe.model.width) or 1.0
    )
    limit = speed._step_flops(speed._probe(run(32), 64))
    measure_speed([run(16), run(32), run(64)], most_flops=limit)
    assert measured == [16, 32]
    measured.clear()
    measure_speed([run(64), run(32)], most_flops=1.0)
    assert measured == [32]


def test_named_routed_blocks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        speed, "_measure", lambda probe, *_: seen.append(probe.model.routed_blocks) or 1.0
    )
    measure_speed([run(16, depth=RandomK(capacity=0.5, blocks=(1, 5)))])
    assert seen == [(1, 5)]


def test_a_real_measurement_is_a_speed() -> None:
    value = measure_speed([run(16)], seconds=0.0)(run(16))
    assert 0 < value < math.inf
