import pytest

from isoflop.bench.measured import Ratio
from isoflop.bench.train import BenchRow, verdicts


def row(variant: str = "dense", **changes: object) -> BenchRow:
    settings = {
        "group": 0,
        "variant": variant,
        "implementation": "isoflop",
        "compiled": True,
        "parameters": 10,
        "convention": "causal",
        "flops_per_step": 100.0,
        "step_seconds": 1.0,
        "steps_per_second": 1.0,
        "achieved_flops": 100.0,
        "peak_flops": 200.0,
        "width": 512,
        "blocks": 8,
        "heads": 8,
        "sequence_length": 1024,
        "sequences_per_step": 4,
        "vocabulary": 4096,
        "dtype": "bf16",
        "threads": 2,
        "rounds": 9,
    }
    return BenchRow.model_validate({**settings, **changes})


def ratio(of: BenchRow, speed_ratio: float) -> Ratio:
    return Ratio(
        group=0, name=of.name, reference="first", speed_ratio=speed_ratio, low=0.1, high=9.0
    )


@pytest.mark.parametrize(
    ("compiled", "speed_ratio", "held"),
    [(False, 0.5, True), (False, 0.9, False), (True, 1.0, True), (True, 1.1, False)],
)
def test_the_peer_must_be_slower_by_enough(compiled: bool, speed_ratio: float, held: bool) -> None:
    peer = row(implementation="transformers", compiled=compiled)
    (verdict,) = verdicts([row(), peer], [ratio(peer, speed_ratio)])
    assert verdict.measured == pytest.approx(1 / speed_ratio)
    assert verdict.held is held


@pytest.mark.parametrize(("speed_ratio", "held"), [(1.79, False), (1.81, True)])
def test_routing_must_gain_what_its_flops_promise(speed_ratio: float, held: bool) -> None:
    routed = row("MoD", flops_per_step=50.0)
    (verdict,) = verdicts([row(), routed], [ratio(routed, speed_ratio)])
    assert verdict.expected == pytest.approx(1.8)
    assert verdict.held is held


@pytest.mark.parametrize("length", [{"sequence_length": 512}, {"width": 128}])
def test_small_routed_models_are_held_to_nothing(length: dict[str, int]) -> None:
    routed = row("MoD", flops_per_step=50.0, **length)
    assert verdicts([row(**length), routed], [ratio(routed, 1.0)]) == ()


def test_unlike_contenders_are_held_to_nothing() -> None:
    wider, eager = row("MoD", flops_per_step=50.0, width=768), row("MoD", compiled=False)
    assert verdicts([row(), wider], [ratio(wider, 1.0)]) == ()
    assert verdicts([row(), eager], [ratio(eager, 1.0)]) == ()
