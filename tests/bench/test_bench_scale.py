"""Steps by size: what a row tells, what is left out, and where time goes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isoflop.bench import measured, scale
from isoflop.bench.scale import (
    SHARES,
    VARIANTS,
    ScaleReport,
    bench_scale,
    describe_scale,
    scale_config,
    scale_environment,
)
from isoflop.cli import main
from isoflop.config.load import load_study
from isoflop.costs import parameters, train_flops_per_token
from isoflop.hardware.accelerators import measured_steps

PAPER = Path(__file__).parents[2] / "studies" / "mod-isoflop-paper.toml"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.bench.machine.busy", lambda: None)
    monkeypatch.setattr(scale, "gemm_peak", lambda *_: 1e12)
    monkeypatch.setattr(scale, "SMALL_WORDS", (64, 16))
    monkeypatch.setattr(scale, "STEP_TOKENS", {"cpu": 32, "cuda": 262_144})
    monkeypatch.setattr(measured, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(scale, "in_turns", lambda turns, **_: [[turn()] for turn in turns])


def scaled(*sizes: float, **settings: Any) -> ScaleReport:
    return bench_scale(sizes, scale_environment("cpu", 1), precision="fp32", seconds=0, **settings)


def test_rows_are_the_arithmetic_of_their_steps() -> None:
    kept: list[ScaleReport] = []
    report = scaled(2e5, keep=kept.append)
    assert [(row.variant, row.kind) for row in report.rows] == [
        ("dense", "dense"),
        ("MoD 12.5%", "MoD"),
    ]
    for row in report.rows:
        config = scale_config(2e5, VARIANTS[row.variant], "cpu", "fp32")
        assert row.parameters == parameters(config.model).total
        flops = train_flops_per_token(config.model, 16, "full")
        assert row.achieved_flops == pytest.approx(row.tokens_per_second * flops)
        assert row.of_best_product == row.achieved_flops / 1e12
        assert (row.micro_batch, row.recompute, row.compiled) == (2, "none", False)
        assert row.estimated_bytes > 16 * row.parameters
        assert (row.peak_bytes, row.utilisation) == (None, None)
        assert tuple(row.shares) == SHARES
        assert sum(row.shares.values()) == pytest.approx(1, abs=0.02)
        assert min(row.shares["products"], row.shares["optimiser"], row.shares["norms"]) > 0
    assert [len(one.rows) for one in kept] == [1, 2]
    assert ScaleReport.model_validate_json(report.model_dump_json()) == report
    on_gpu = report.rows[0].model_copy(
        update={"device": "NVIDIA H200", "achieved_flops": 0.4 * 989e12}
    )
    text = "\n".join(describe_scale(report.model_copy(update={"rows": (on_gpu, report.rows[1])})))
    assert "0.4 " in text
    assert "idle" in text


def test_the_published_sizes_are_those_of_the_study() -> None:
    assert load_study(PAPER).shape == scale.FAMILY
    for size in (124e6, 300e6, 1e9, 3e9):
        for depth in VARIANTS.values():
            config = scale_config(size, depth, "cuda", "bf16")
            assert parameters(config.model).total == pytest.approx(size, rel=0.1)
            assert (config.model.vocabulary, config.data.sequence_length) == (32_000, 2048)
            assert (config.tokens_per_step, config.convention) == (262_144, "full")


def test_what_fails_is_told_and_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = scale.own_step

    def scarce(config: Any, **given: Any) -> Any:
        if config.model.routed_blocks:
            raise RuntimeError("CUDA out of memory")
        return prepared(config, **given)

    monkeypatch.setattr(scale, "own_step", scarce)
    monkeypatch.setattr(scale, "time_shares", lambda *_: {})
    report = scaled(2e5)
    assert [row.variant for row in report.rows] == ["dense"]
    assert report.notes == ("MoD 12.5%, 2e+05 parameters: CUDA out of memory",)
    assert describe_scale(report)[-1].startswith("note: MoD 12.5%")


def test_steps_that_are_not_finite_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoflop.training.Trainer.step", lambda *_: SimpleNamespace(finite=False))
    with pytest.raises(ValueError, match=r"nothing could be measured: dense.*not finite"):
        scaled(2e5)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("pytorch_flash::flash_fwd_kernel<cutlass::bfloat16_t>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "attention"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "products"),
        ("aten::addmm", "products"),
        ("multi_tensor_apply_kernel<LpNormFunctor<float>>", "optimiser"),
        ("multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>", "optimiser"),
        ("triton_red_fused_add_mean_mul_pow_rsqrt_2", "norms"),
        ("triton_poi_fused_mul_silu_1", "rest"),
        ("Memcpy DtoD (Device -> Device)", "rest"),
    ],
)
def test_kernels_by_name(name: str, group: str) -> None:
    assert scale._group(SimpleNamespace(key=name, cpu_parent=None)) == group
    part = SimpleNamespace(key="aten::copy_", cpu_parent=SimpleNamespace(key=name, cpu_parent=None))
    assert scale._group(part) == group


def test_the_command_writes_what_plan_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "time_shares", lambda *_: {})
    command = ["bench", "train", "--sizes", "2e5", "--dtype", "fp32", "--threads", "1"]
    assert main([*command, "--json", "--out", str(tmp_path)]) == 0
    path = tmp_path / "train.json"
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(path.read_text())
    for row in told["rows"]:
        row["device"] = "NVIDIA H200"
    path.write_text(json.dumps(told))
    assert [step.kind for step in measured_steps(path)] == ["dense", "MoD"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sizes", "124M"], "--sizes is '124M'; expected numbers, like 124e6,300e6,1e9"),
        (["--sizes", "0"], "target_parameters is 0.0; expected a positive number"),
        (["--sizes", "nan"], "target_parameters is nan; expected a positive number"),
        (["--sizes", "1e6", str(PAPER)], "a study and --sizes are given"),
        (["--device", "cuda"], "--device cuda is given without --sizes"),
    ],
)
def test_the_command_refuses(
    options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "train", "--dtype", "fp32", *options]) == 2
    assert expected in capsys.readouterr().err
