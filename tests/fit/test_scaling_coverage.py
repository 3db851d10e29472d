"""How often the intervals of a scaling fit hold the truth, on simulated studies.

With -s the table of docs/fits.md is printed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scaling_records import LENGTH, power_law, study

from isoflop.fit import fit_scaling
from isoflop.fit.intervals import document_estimate

B = -0.09
GAP = 0.003
EQUAL = (4,) * 24
UNEQUAL = (40, 1, 2, 1, 12, 1, 3, 5, 1, 1, 2, 8, 1, 1, 25, 2)
"""Windows of documents: three of sixteen hold 73% of the text."""


def coverage(
    studies: int, windows: Sequence[int], seeds: int, gap_noise: float, *, first: int
) -> dict[str, float]:
    """Return the share of studies whose 95% intervals hold b, a size's loss and the mean gap."""
    full = power_law(1.3, B)
    held = {"b": 0, "loss": 0, "gap": 0, "gap at a size": 0}
    for number in range(first, first + studies):
        fit = fit_scaling(
            *study(
                {"full": full, "block": lambda c, span: full(c, span) + GAP},
                seeds=range(seeds),
                windows=windows,
                seed_noise=0.004,
                document_noise=0.003,
                gap_noise=gap_noise,
                generator=np.random.default_rng(number),
            ),
            baseline="full",
        )
        line, loss, mean, single = (
            [one for one in found if (one.start, one.stop) == (0, LENGTH)][at]
            for found, at in ((fit.projections, 0), (fit.losses, 0), (fit.gaps, 0), (fit.gaps, 1))
        )
        true = full(loss.compute["6nd"], (0, LENGTH))
        found = (line.b, B), (loss.loss, true), (mean.difference, GAP), (single.difference, GAP)
        for name, (one, truth) in zip(held, found, strict=True):
            held[name] += one.low <= truth <= one.high
    return {name: count / studies for name, count in held.items()}


@pytest.mark.parametrize("windows", [EQUAL, UNEQUAL])
def test_document_intervals_hold_whatever_the_lengths(windows: Sequence[int]) -> None:
    generator = np.random.default_rng(7)
    counts, held, studies = np.array(windows), 0, 10_000
    for _ in range(studies):
        means = generator.standard_normal(len(counts))
        found = document_estimate(means * counts, counts)
        assert found is not None
        interval = found.interval()
        held += interval.low <= 0 <= interval.high
    # 10,000 samples have a binomial error of 0.2%. Where three of sixteen documents hold most of
    # the text, the interval is a little too wide.
    assert 0.943 < held / studies < (0.957 if windows is EQUAL else 0.975)


@pytest.mark.slow
@pytest.mark.parametrize("windows", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("gap_noise", [0.0, 0.004, 0.02])
def test_coverage_over_designs(windows: Sequence[int], seeds: int, gap_noise: float) -> None:
    shares = coverage(400, windows, seeds, gap_noise, first=1000)
    columns = " | ".join(f"{share:.3f}" for share in shares.values())
    kind = "equal" if windows is EQUAL else "unequal"
    print(f"\n| {len(windows)}, {kind} | {seeds} | {gap_noise:g} | {columns} |")
    for name, share in shares.items():
        # 400 studies have a binomial error of 1.1%.
        assert share > 0.95 - 3 * 0.011, name


@pytest.mark.slow
def test_a_gap_of_the_margin_is_seldom_equivalent_and_none_mostly_is() -> None:
    full, studies = power_law(1.3, B), 200
    called = {0.01: 0, 0.0: 0}
    for by in called:
        for number in range(studies):
            fit = fit_scaling(
                *study(
                    {"full": full, "block": lambda c, span, by=by: full(c, span) + by},
                    seed_noise=0.004,
                    document_noise=0.003,
                    gap_noise=0.004,
                    generator=np.random.default_rng(number),
                ),
                baseline="full",
                margin=0.01,
            )
            means = [one for one in fit.gaps if one.non_embedding is None]
            called[by] += all(one.outcome == "equivalent" for one in means)
    print(f"\nequivalent where the gap is the margin, and where there is none: {called}")
    # 200 studies have a binomial error of 1.5% at 5%.
    assert called[0.01] / studies < 0.05 + 3 * 0.015
    assert called[0.0] / studies > 0.9
