"""`isoflop check` passes where all is right, and names what is wrong where something is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from isoflop.check import (
    Check,
    Found,
    Outcome,
    every_check,
    machine,
    operators,
    outcomes,
    own,
    runs,
    steps,
)
from isoflop.check.comparing import Place, apart
from isoflop.cli.check import outcome_lines, summary
from isoflop.cli.main import main

BOTH = ("fp32", "bf16")


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [one.name for one in outcomes(checks, "cpu", ("fp32",)) if not one.passed]


@pytest.mark.parametrize("check", operators.CHECKS, ids=lambda check: check.name)
def test_operators_are_right(check: Check) -> None:
    found = list(outcomes([check], "cpu", BOTH))
    assert [one.precision for one in found] == list(BOTH)
    for one in found:
        assert one.passed, one
        assert one.difference is not None
        assert one.difference > 0


def test_steps_are_right() -> None:
    checks = steps.checks("cpu")
    assert {check.name for check in checks} >= {"step of dense", "step of MoD, block attention"}
    assert len(steps.checks("cuda")) > len(checks)
    assert failed(checks[1:2]) == []


@pytest.mark.slow
def test_the_whole_check_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("all passed")
    assert all(line.startswith("ok") and "compile fails" not in line for line in lines[:-1])


def scaled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *given, **settings: 1.001 * function(*given, **settings)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("causal_attention", "attention"),
        ("block_attention", "block attention"),
        ("attention_step", "attention of the last token"),
        ("add_at", "routed update"),
        ("rotate", "rotary positions"),
    ],
)
def test_a_wrong_operator_is_named(name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, name, scaled(getattr(operators, name)))
    chosen = tuple(one for one in operators.CHECKS if one.name == check)
    assert failed(chosen) == [check]


def test_a_wrong_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    part = steps.Trainer._part

    def forgetful(
        self: steps.Trainer, tokens: Tensor, noise: Tensor | None, share: float
    ) -> object:
        return part(self, tokens, noise, 1.0 if share < 1 else share)

    monkeypatch.setattr(steps.Trainer, "_part", forgetful)
    assert failed(steps.checks("cpu")[:1]) == ["step of dense"]


def test_what_is_not_finite_is_named_where_it_is_not_first(monkeypatch: pytest.MonkeyPatch) -> None:
    one, wrong = torch.ones(2), torch.tensor([math.nan, 1.0])
    assert math.isnan(apart([one, wrong], [one, one]))
    name, how = list(steps.WAYS.items())[2]

    def learned(_: object, __: str, **given: Any) -> list[Tensor]:
        return [one, wrong if given == how else one]

    monkeypatch.setattr(steps, "learned", learned)
    (outcome,) = outcomes(steps.checks("cpu")[:1], "cpu", ("fp32",))
    assert (outcome.passed, outcome.note) == (False, f"apart by nan; most apart: {name}")
    for mine, plain in ((math.nan, 0.0), (0.0, math.nan)):
        slopes = iter([{"stream": 0.1, "logits": mine}, {"stream": 0.1, "logits": plain}])
        monkeypatch.setattr(own, "_exponents", lambda *_, slopes=slopes, **__: next(slopes))
        found = own._over_sizes(Place("cpu", "fp32"), blocks=2)
        assert math.isnan(float(found.difference or 0))


@pytest.mark.slow
def test_a_run_goes_on_after_a_kill() -> None:
    assert failed(runs.CHECKS[:1]) == []


def test_decisions_are_causal() -> None:
    assert failed(runs.CHECKS[1:]) == []


def test_a_decision_that_looks_ahead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "future_change", lambda *_: type("Seen", (), {"changed": 0.25})())
    (outcome,) = outcomes(runs.CHECKS[1:], "cpu", ("fp32",))
    assert not outcome.passed
    assert outcome.difference == 0.25


def test_an_error_fails_its_check_alone() -> None:
    def broken(_: object) -> Found:
        raise RuntimeError("no kernel image\nis available")

    checks = (
        Check("one", "a with b", "do this", broken),
        Check("two", "c with d", "", lambda _: Found(0.0, 0.0), in_every_precision=False),
    )
    one, two = outcomes(checks, "cpu", ("fp32",))
    assert (one.passed, one.note) == (False, "fails: RuntimeError: no kernel image is available")
    assert list(outcome_lines(one))[1] == "      do this"
    assert two.passed
    assert two.precision is None
    assert summary([one, two]).endswith("1 FAILED")


def test_exit_code_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("isoflop.check.every_check", lambda device: operators.CHECKS[4:5])
    assert main(["check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Outcome.model_validate(one).precision for one in found] == list(BOTH)
    monkeypatch.setattr(operators, "rotate", scaled(operators.rotate))
    assert main(["check"]) == 1
    assert "FAIL  rotary positions, fp32" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--device", "cuda"]) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = outcomes(machine.CHECKS[1:], "cpu", ("fp32",))
    assert outcome.passed
    assert "GiB of memory for runs" in outcome.note
    monkeypatch.setattr(machine, "LEAST_DISK", 1e18)
    assert failed(machine.CHECKS[1:]) == ["room"]
    assert len(every_check("cpu")) > 15
