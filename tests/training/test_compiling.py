"""Steps are compiled where that pays, can be done, and computes the same."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isoflop.config import RunConfig
from isoflop.runs import RunFolder
from isoflop.training import compiles_by_default, compiling_fault, environment, train
from isoflop.training.compiling import COMPILE_FROM_FLOPS

MakeRun = Callable[..., RunConfig]
Probe = Callable[[Tensor], list[Tensor]]


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    compiling_fault.cache_clear()
    yield
    compiling_fault.cache_clear()


def compile_with(monkeypatch: pytest.MonkeyPatch, compiled: Callable[[Probe], Probe]) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled(function))


def spoilt(
    number: int, spoil: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32
) -> Callable[[Probe], Probe]:
    """A compiler that makes one mistake in one function for one type."""

    def compiler(function: Probe) -> Probe:
        def compiled(x: Tensor) -> list[Tensor]:
            values = function(x)
            if x.dtype == dtype:
                values[number] = spoil(values[number])
            return values

        return compiled

    return compiler


def test_a_compiler_that_is_right_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with(monkeypatch, lambda function: function)
    assert compiling_fault() is None


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    ("dtype", "spoil"),
    [
        (torch.float32, lambda x: x * torch.nan),
        (torch.float32, lambda x: x * 1.0001),
        (torch.bfloat16, lambda x: x * 1.5),
        # As where the remainder of a vector is computed wrongly.
        (torch.float32, lambda x: x.index_fill(0, torch.tensor(36), 0.1)),
    ],
    ids=["nan", "float32", "bfloat16", "remainder"],
)
def test_a_wrong_function_is_noticed(
    number: int, dtype: torch.dtype, spoil: Callable[[Tensor], Tensor], monkeypatch
) -> None:
    compile_with(monkeypatch, spoilt(number, spoil, dtype))
    assert compiling_fault() == "torch.compile computes wrong numbers"


def test_a_wrong_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The value is right, and twice as much of it flows back.
    compile_with(monkeypatch, spoilt(0, lambda x: 2 * x - x.detach()))
    assert compiling_fault() == "torch.compile computes wrong numbers"


def test_where_it_is_wrong_runs_are_eager_and_told_so(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    compile_with(monkeypatch, spoilt(0, lambda x: x * torch.nan))
    config = make_run().model_copy(update={"budget_flops": COMPILE_FROM_FLOPS})
    with pytest.warns(UserWarning, match="wrong numbers: steps run eagerly"):
        assert not compiles_by_default(config)
    # Where it would not pay, nothing is tried and nothing said.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compiles_by_default(make_run())
    compiling_fault.cache_clear()
    compile_with(monkeypatch, lambda function: function)
    assert compiles_by_default(config)


def test_a_compiler_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Probe) -> Probe:
        raise RuntimeError("g++ says\n  no such flag")

    compile_with(monkeypatch, failing)
    assert compiling_fault() == "torch.compile fails (RuntimeError: g++ says no such flag)"


def test_no_compiler_is_no_error(monkeypatch: pytest.MonkeyPatch, make_run: MakeRun) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    config = make_run().model_copy(update={"budget_flops": 1e15})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compiles_by_default(config)
    assert compiling_fault() == "there is no C++ compiler (g++ or clang++)"


def test_compiling_where_it_is_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    compile_with(monkeypatch, spoilt(1, lambda x: x * torch.nan))
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"asked for, but torch.compile computes wrong numbers"):
        train(make_run(), folder, cache=cache, threads=1, compiled=True)
    # Neither does a run go on compiled that was started so elsewhere.
    started = environment("cpu", 1, compiled=True)
    monkeypatch.setattr("isoflop.training.loop.environment", lambda *_: started)
    with pytest.raises(ValueError, match=r"started with compiled steps, but .* to start anew"):
        train(make_run(), folder, cache=cache, threads=1)
