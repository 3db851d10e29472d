"""The variants in `examples` keep to the door."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from isoflop.check import outcomes, own_checks
from isoflop.config import Choices
from isoflop.config.own import module_of, of_file

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
SLOW = ("compiled step", "width and depth")


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_passes_the_check(file: Path, slow: bool) -> None:
    part, named = of_file(file)
    checks = own_checks(Choices(**{part: named}))
    chosen = [check for check in checks if (check.name in SLOW) == slow]
    assert len(chosen) > 1
    found = outcomes(chosen, "cpu", ("fp32",))
    assert [str(one) for one in found if not one.passed] == []


def test_the_delta_rule_by_chunks_is_that_of_token_after_token() -> None:
    part, named = of_file(FOLDER / "gated_delta_net.py")
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 13, 3, 5, generator=draw, dtype=torch.float64)
    keep, write = torch.rand(2, 2, 13, 3, generator=draw, dtype=torch.float64)
    k, keep, state = F.normalize(k, dim=-1), -keep, q.new_ones(2, 3, 5, 5)
    found, last = module_of(named, part).read_and_write(q, k, v, keep, write, state)
    for t in range(13):
        state = state * keep[:, t, :, None, None].exp()
        there = torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        new = write[:, t, :, None] * (v[:, t] - there)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], new)
        expected = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
        torch.testing.assert_close(found[:, t], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last, state, rtol=1e-10, atol=1e-10)
