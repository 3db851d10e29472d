"""What a device reaches in training: as measured where that tells of the run, else as assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from given import small_model
from isoflop.config import BlockAttention, DataConfig, RandomK, Recipe, RunConfig, TopK
from isoflop.costs import parameters, train_flops_per_token
from isoflop.hardware.accelerators import (
    ACCELERATORS,
    MeasuredStep,
    accelerator,
    accelerator_speed,
    measured_share,
    measured_steps,
)

H100, PEAK = "NVIDIA H100 80GB HBM3", 989e12


def step(size: float, share: float, **changes: Any) -> MeasuredStep:
    given = {"kind": "dense", "parameters": round(size), "sequence_length": 64, "dtype": "bf16"}
    return MeasuredStep(**{**given, "device": H100, "achieved_flops": share * PEAK, **changes})


def run(
    *, length: int = 64, precision: str = "bf16", convention: str = "full", **model: Any
) -> Any:
    return RunConfig(
        model=small_model(**model),
        data=DataConfig(sequence_length=length),
        recipe=Recipe(precision=precision),
        steps=1,
        sequences_per_step=2,
        convention=convention,
    )


SIZE = parameters(run().model).total


def test_accelerators_by_name() -> None:
    assert accelerator("a100-80g") is ACCELERATORS["A100-80G"]
    assert accelerator(H100) is ACCELERATORS["H100-SXM"]
    assert accelerator_speed("a100-80g", 0.5)(run()) == pytest.approx(156e12)
    assert all(device.peak_flops > device.memory_bytes > 1e9 for device in ACCELERATORS.values())
    names = [name for device in ACCELERATORS.values() for name in device.names]
    assert len(names) == len(set(names))
    with pytest.raises(ValueError, match=r"accelerator is 'H1000'.*H100-SXM"):
        accelerator_speed("H1000")
    with pytest.raises(ValueError, match="utilisation is 40"):
        accelerator_speed("H200", 40)


def test_between_measured_sizes_the_share_is_interpolated_and_beyond_them_it_stays() -> None:
    steps = [step(SIZE * 100, 0.5), step(SIZE / 10, 0.2)]
    # A third of the way: ten of a thousand times the size.
    assert measured_share(run(), steps) == pytest.approx(0.3, 1e-4)
    assert measured_share(run(), steps[:1]) == 0.5
    assert measured_share(run(), steps[1:]) == 0.2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.5),
        ({"depth": TopK(capacity=0.25)}, 0.3),
        ({"depth": RandomK(capacity=0.5)}, 0.3),
        ({"attention": BlockAttention(block_size=16, top_k=2)}, None),
        ({"precision": "fp32"}, None),
        ({"length": 128}, 0.5),
        ({"length": 129}, None),
        ({"length": 32}, 0.5),
        ({"length": 31}, None),
    ],
)
def test_a_step_tells_of_runs_like_it(changes: Any, expected: float | None) -> None:
    steps = [step(SIZE, 0.5), step(SIZE, 0.3, kind="MoD")]
    assert measured_share(run(**changes), steps) == expected


def test_what_is_measured_in_full_squares_is_told_in_the_runs_convention() -> None:
    config, steps = run(convention="causal"), [step(SIZE, 0.5)]
    flops = {c: train_flops_per_token(config.model, 64, c) for c in ("causal", "full")}
    assert flops["full"] > flops["causal"]
    # A token takes the same time, however it is counted.
    for name in ("h100-sxm", "l40s"):
        found = accelerator_speed(name, 0.1, steps)
        peak = accelerator(name).peak_flops
        assert flops["causal"] / found(config) == pytest.approx(flops["full"] / (0.5 * peak))
        assert found(run(precision="fp32")) == pytest.approx(0.1 * peak)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"error": "cut"}, "no device"),
        ([1], "no device"),
        ({"rows": [{"kind": "dense"}]}, "no device"),
        ({"rows": [dict(step(1e6, 0.1)) | {"parameters": 0}]}, "no device"),
        ({"rows": [dict(step(1e6, 0.1)) | {"achieved_flops": 0.0}]}, "no device"),
        ({"rows": [dict(step(1e6, 0.1, device="cpu"))]}, "cpu"),
    ],
)
def test_a_file_without_steps_on_an_accelerator_is_refused(
    tmp_path: Path, content: Any, named: str
) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"train.json has steps of {named}; expected what"):
        measured_steps(path)


def test_steps_of_a_file_may_tell_more_than_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"rows": [dict(step(1e6, 0.1)) | {"micro_batch": 4}], "torch": "2"}))
    assert measured_steps(path) == (step(1e6, 0.1),)
