"""The faster precision is found by measuring, at the sizes of the middle run."""

from __future__ import annotations

import time

import pytest
import torch

from given import small_model
from isoflop.config import PrecisionChoice, PrecisionSpeed, PrecisionSpeeds, RunConfig
from isoflop.config.precision import FASTER, SLOW
from isoflop.hardware import choose_precision, measure_speeds, precision


def run(width: int = 32, vocabulary: int = 256) -> RunConfig:
    return RunConfig(
        model=small_model(vocabulary=vocabulary, width=width, head_width=16, hidden=2 * width),
        steps=3,
        sequences_per_step=2,
    )


def speeds(
    product_gain: float, attention_gain: float | None = None, share: float = 0.5
) -> PrecisionSpeeds:
    """Both precisions, fp32 at 10 GFLOP/s in products and 5 in attention."""
    attention_gain = product_gain if attention_gain is None else attention_gain
    return PrecisionSpeeds(
        rows=64,
        width=32,
        hidden=64,
        attended=64,
        head_width=16,
        attention_share=share,
        fp32=PrecisionSpeed(product_flops=1e10, attention_flops=5e9),
        bf16=PrecisionSpeed(
            product_flops=1e10 * product_gain, attention_flops=5e9 * attention_gain
        ),
    )


@pytest.mark.parametrize(
    ("gain", "chosen"),
    [
        (1 / 50, "fp32"),
        (1.0, "fp32"),
        (FASTER - 1e-9, "fp32"),
        (FASTER + 1e-9, "bf16"),
        (8, "bf16"),
    ],
)
def test_bf16_has_to_be_faster_by_a_margin(
    monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    monkeypatch.setattr(precision, "measure_speeds", lambda *_: speeds(gain))
    choice = choose_precision([run()])
    assert choice.precision == chosen
    assert choice.speeds == speeds(gain)
    assert (choice.device, choice.threads, choice.torch) == ("cpu", 1, torch.__version__)


def test_products_and_attention_count_by_their_flops() -> None:
    # A FLOP of products takes 0.1 and of attention 0.2 ns, at equal shares.
    made = speeds(product_gain=4, attention_gain=0.5, share=0.5)
    assert made.bf16_gain == pytest.approx((0.1 + 0.2) / (0.1 / 4 + 0.2 / 0.5))
    assert made.faster == "fp32"
    assert speeds(product_gain=4, attention_gain=0.5, share=0.1).faster == "bf16"


def test_the_middle_run_is_measured_on_the_threads_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    runs = [run(width) for width in (64, 16, 128, 32, 48)]

    def measure(config: RunConfig, device: str) -> PrecisionSpeeds:
        seen.append((config.model.width, device, torch.get_num_threads()))
        return speeds(1)

    before = torch.get_num_threads()
    monkeypatch.setattr(precision, "measure_speeds", measure)
    choose_precision(runs, threads=before + 1)
    assert seen == [(48, "cpu", before + 1)]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("capability", "gain", "chosen", "measured"),
    [
        ((7, 5), 0.2, "fp32", True),
        ((7, 5), 3.0, "bf16", True),
        ((8, 0), 0.2, "bf16", False),
        ((12, 0), 0.2, "bf16", False),
    ],
)
def test_cuda_goes_by_compute_capability(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    gain: float,
    chosen: str,
    measured: bool,
) -> None:
    monkeypatch.setattr(precision, "measure_speeds", lambda *_: speeds(gain))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    choice = choose_precision([run()], device="cuda")
    assert choice.precision == chosen
    assert (choice.speeds is not None) == measured
    assert (choice.compute_capability is None) == measured
    if not measured:
        assert f"capability {capability[0]}.{capability[1]} has bf16" in choice.figures


def choice_of(gain: float, chosen: str = "fp32") -> PrecisionChoice:
    return PrecisionChoice(
        precision=chosen,
        machine="x86_64 Some Processor",
        device="cpu",
        threads=1,
        torch="0",
        speeds=speeds(gain),
    )


def test_the_figures_name_both_precisions() -> None:
    assert choice_of(0.04).figures == (
        "matrix products 10 GFLOP/s, in bf16 0.4; attention 5, in bf16 0.2"
    )
    assert choice_of(4, "bf16").figures == (
        "matrix products 40 GFLOP/s, in fp32 10; attention 20, in fp32 5"
    )
    assert choice_of(4).place == "x86_64 Some Processor, 1 thread"


def test_a_precision_is_slow_from_a_factor_on() -> None:
    assert choice_of(1 / 50).slowness("bf16") == pytest.approx(50)
    assert choice_of(1 / 50).slowness("fp32") is None
    assert choice_of(4).slowness("fp32") == pytest.approx(4)
    assert choice_of(4).slowness("bf16") is None
    assert choice_of(1 / (SLOW - 0.01)).slowness("bf16") is None
    assert choice_of(1 / (SLOW + 0.01)).slowness("bf16") is not None


@pytest.mark.parametrize("width", [32, 4096])
def test_it_is_really_measured_and_soon_over(width: int) -> None:
    config = run(width)
    measure_speeds(run(16))
    started = time.process_time()
    found = measure_speeds(config)
    # Processor time, which neighbours do not stretch; a slow bf16 may take several short passes.
    assert time.process_time() - started < 4
    assert found.fp32.product_flops > 1e7
    assert found.bf16.attention_flops > 0
    assert found.width == min(width, 1024)
    assert found.attended <= config.data.sequence_length
    assert found.rows <= config.tokens_per_step
    assert 0 < found.attention_share < 1
