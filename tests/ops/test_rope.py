"""Rotary positions against complex numbers, which turn without any index arithmetic."""

from __future__ import annotations

import cmath

import pytest
import torch

from isoflop.ops import rotary_tables, rotate


def test_turns_each_pair_as_a_complex_number() -> None:
    length, width, base = 7, 6, 100.0
    x = torch.randn(2, length, 3, width, generator=torch.Generator().manual_seed(0))
    result = rotate(x, *rotary_tables(length, width, base))
    for b in range(2):
        for t in range(length):
            for h in range(3):
                for i in range(width // 2):
                    before = complex(x[b, t, h, i], x[b, t, h, i + width // 2])
                    turned = before * cmath.exp(1j * t * base ** (-2 * i / width))
                    found = complex(result[b, t, h, i], result[b, t, h, i + width // 2])
                    assert abs(found - turned) < 1e-6 * (1 + abs(turned))


def test_products_depend_on_the_distance_alone() -> None:
    cosines, sines = rotary_tables(600, 16, 10_000.0)
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def product(i: int, j: int) -> float:
        turned = rotate(q, cosines[i : i + 1], sines[i : i + 1])
        return float((turned * rotate(k, cosines[j : j + 1], sines[j : j + 1])).sum())

    assert product(13, 5) == pytest.approx(product(513, 505), abs=1e-4)
    assert product(13, 5) != pytest.approx(product(13, 6), abs=1e-2)


def test_sequences_may_have_positions_of_their_own() -> None:
    cosines, sines = rotary_tables(11, 8, 10_000.0)
    x = torch.randn(2, 3, 1, 8, generator=torch.Generator().manual_seed(2))
    positions = torch.tensor([[0, 4, 10], [2, 3, 9]])
    result = rotate(x, cosines[positions], sines[positions])
    for row in range(2):
        alone = rotate(x[row : row + 1], cosines[positions[row]], sines[positions[row]])
        assert torch.equal(result[row : row + 1], alone)


def test_keeps_dtype_and_length() -> None:
    x = torch.randn(1, 9, 2, 4, generator=torch.Generator().manual_seed(3))
    tables = rotary_tables(9, 4, 10_000.0)
    assert rotate(x.bfloat16(), *tables).dtype == torch.bfloat16
    torch.testing.assert_close(rotate(x, *tables).norm(dim=-1), x.norm(dim=-1))


def test_far_positions_lose_no_precision() -> None:
    cosines, sines = rotary_tables(100_001, 4, 10_000.0)
    angle = 100_000 * 10_000.0**-0.5
    expected = cmath.exp(1j * angle)
    assert float(cosines[-1, 1]) == pytest.approx(expected.real, abs=1e-6)
    assert float(sines[-1, 1]) == pytest.approx(expected.imag, abs=1e-6)
