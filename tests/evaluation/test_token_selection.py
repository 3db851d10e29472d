"""Who is selected, by position and id, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.config import TokenSelection
from isoflop.evaluation.selection import POSITION_RANGES, SelectionSums

TOKENS = np.array([[5, 3, 5, 1], [3, 3, 1, 5], [3, 6, 5, 3]])
"""Three windows of four; 3 occurs five times, 5 four times, 1 twice, 6 once."""
SELECTED = np.array(
    [
        [[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0]],
        [[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]],
    ],
    dtype=bool,
)
VOCABULARY = 8


def added(*parts: slice) -> SelectionSums:
    sums = SelectionSums(2, 4, VOCABULARY)
    for part in parts:
        sums.add(TOKENS[part], SELECTED[:, part])
    return sums


@pytest.mark.parametrize("parts", [(slice(0, 3),), (slice(0, 1), slice(1, 3))])
def test_counts(parts: tuple[slice, ...]) -> None:
    sums = added(*parts)
    assert sums.realised_capacity(0) == pytest.approx(5 / 12)
    assert sums.realised_capacity(1) == pytest.approx(3 / 12)
    assert sums.share_by_position(0) == pytest.approx((1 / 3, 1 / 3, 2 / 3, 1 / 3))
    assert sums.frequent(1).tolist() == [1, 3, 5, 6]
    assert sums.frequent(2).tolist() == [1, 3, 5]
    assert sums.never(1, 0) == (1, 3)
    assert sums.never(2, 1) == (1,)
    assert sums.never(1, 1) == (1, 6)
    # The first block selects 5 and 6, the second 3 and 5.
    assert sums.never(1) == (1,)
    most = [
        TokenSelection(token=5, occurrences=4, selected=4),
        TokenSelection(token=3, occurrences=5, selected=0),
        TokenSelection(token=1, occurrences=2, selected=0),
    ]
    assert sums.most_selected(2, 0) == most
    # Of ids that share a place, the one that occurs more often comes first.
    assert sums.least_selected(2, 0) == [most[1], most[2], most[0]]
    assert [row.share for row in sums.least_selected(2, 1)] == [0, 0.2, 0.5]


def test_ids_that_do_not_occur_are_not_never_selected() -> None:
    assert added(slice(0, 3)).never(0) == (1,)


@pytest.mark.parametrize("length", [16, 19, 64, 5])
def test_ranges_of_positions_cover_the_window(length: int) -> None:
    sums = SelectionSums(1, length, 3)
    selected = np.zeros((1, 2, length), dtype=bool)
    selected[0, :, -1] = True
    sums.add(np.ones((2, length), dtype=np.int64), selected)
    shares = sums.share_by_position(0)
    assert len(shares) == min(POSITION_RANGES, length)
    assert shares[:-1] == (0,) * (len(shares) - 1)
    assert shares[-1] == pytest.approx(1 / (length // len(shares)))
