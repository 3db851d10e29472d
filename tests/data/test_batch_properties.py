"""Properties of batches that hold for any corpus, length and batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from synthetic_split import stream

from isoflop.config import Windows
from isoflop.data import Batches

FAST = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Drawn:
    """A corpus and how it is batched."""

    lengths: tuple[int, ...]
    """Tokens of each document, its end counted."""
    sequence_length: int
    sequences: int
    """Of a step."""
    seed: int
    windows: Windows

    def batches(self) -> Batches:
        split = stream(*self.lengths)
        return Batches(split, self.sequence_length, self.sequences, self.seed, self.windows)

    @property
    def whole(self) -> list[int]:
        """Windows of an epoch by the document that they lie in, of a stream all in one."""
        parts = [sum(self.lengths)] if self.windows == "stream" else self.lengths
        return [(length - 1) // self.sequence_length for length in parts]


drawn = st.builds(
    Drawn,
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=12).map(tuple),
    sequence_length=st.integers(1, 13),
    sequences=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
    windows=st.sampled_from(("stream", "documents")),
)


def hold_order(one: Drawn) -> None:
    """An epoch holds each window once, wherever steps begin and end; resuming changes nothing."""
    assume(sum(one.whole))
    count = sum(one.whole)
    steps = -(-3 * count // one.sequences)
    forwards = [one.batches().batch(step) for step in range(steps)]
    rows = np.concatenate(forwards)
    # Ids of the synthetic stream are positions from 1; an end of a document, 0, comes last at most.
    starts = rows[:, 0] if one.windows == "documents" else _starts(rows, one)
    edges = np.cumsum([0, *one.lengths])
    for epoch in range(3):
        found = starts[epoch * count : (epoch + 1) * count]
        assert len(set(found.tolist())) == count
        if one.windows == "documents":
            owners = np.searchsorted(edges, found - 1, side="right") - 1
            assert Counter(owners.tolist()) == Counter(
                {place: number for place, number in enumerate(one.whole) if number}
            )
    for begin in range(steps):
        resumed = one.batches()
        for step in range(begin, min(begin + 2, steps)):
            np.testing.assert_array_equal(resumed.batch(step), forwards[step])


def _starts(rows: np.ndarray, one: Drawn) -> np.ndarray:
    """Return where each row begins in the stream, by looking it up."""
    tokens = np.asarray(stream(*one.lengths).tokens).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, one.sequence_length + 1)
    known = {tuple(windows[start]): start for start in range(0, len(windows), one.sequence_length)}
    return np.array([known[tuple(row)] for row in rows])


@FAST
@given(drawn)
def test_epochs_hold_each_window_once_and_resume_in_order(one: Drawn) -> None:
    hold_order(one)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn)
def test_many_corpora_are_batched_alike(one: Drawn) -> None:
    hold_order(one)
