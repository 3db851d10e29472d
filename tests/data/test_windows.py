from collections.abc import Sequence

import numpy as np
import pytest
from synthetic_split import stream

from isoflop.data import WholeWindows, document_windows, evaluation_windows, windows


@pytest.mark.parametrize("limit", [None, 1, 14, 15, 16, 29, 37, 1000])
@pytest.mark.parametrize("lengths", [(38,), (7, 1, 13, 17), (2, 2)])
def test_evaluation_covers_each_target_once(lengths: tuple[int, ...], limit: int | None) -> None:
    split = stream(*lengths)
    expected = min(sum(lengths) - 1, limit or 1000)
    targets, inputs, owners = [], [], []
    for tokens, document, mask in evaluation_windows(split, 5, 3, limit):
        assert tokens.shape == (3, 6)
        assert document.shape == mask.shape == (3, 5)
        assert (document[~mask] == -1).all()
        assert (tokens[:, 1:][~mask] == 0).all()
        inputs += tokens[:, :-1][mask].tolist()
        targets += tokens[:, 1:][mask].tolist()
        owners += document[mask].tolist()
    assert inputs == split.tokens[:expected].tolist()
    assert targets == split.tokens[1 : expected + 1].tolist()
    assert owners == np.repeat(np.arange(len(lengths)), lengths)[1 : expected + 1].tolist()


def test_evaluation_windows_follow_each_other() -> None:
    (tokens, _, _), *_ = evaluation_windows(stream(40), 5, 3)
    np.testing.assert_array_equal(tokens[1:, 0], tokens[:-1, -1])


@pytest.mark.parametrize("limit", [3, 5, 14, 30, 38, 39])
def test_spread_windows_lie_all_over_the_stream(limit: int) -> None:
    split = stream(20, 20)  # 39 targets, 7 whole windows of 5
    read = [
        (int(begin), targets)
        for tokens, _, mask in evaluation_windows(split, 5, 3, limit, spread=True)
        for begin, targets in zip(tokens[:, 0], mask.sum(axis=1).tolist(), strict=True)
        if targets
    ]
    first = [int(split.tokens[5 * place]) for place in range(8)]
    expected = {3: [3], 5: [3], 14: [1, 5], 30: [0, 1, 2, 4, 5, 6], 38: range(7), 39: range(8)}
    assert [begin for begin, _ in read] == [first[place] for place in expected[limit]]
    assert {targets for _, targets in read} == {3: {3}, 39: {5, 4}}.get(limit, {5})


@pytest.mark.parametrize(
    ("limit", "documents"), [(3, [0]), (14, [0, 6]), (30, range(0, 12, 2)), (60, range(12))]
)
def test_spread_documents_lie_all_over_the_split(limit: int, documents: Sequence[int]) -> None:
    split = stream(*[9] * 12)  # whole windows of 5, then of 3 targets
    read = np.concatenate(
        [place[mask] for _, place, mask in document_windows(split, 5, 3, limit, spread=True)]
    )
    assert np.unique(read).tolist() == list(documents)
    assert len(read) == min(limit, 5 * len(documents))


def test_evaluation_without_targets() -> None:
    for split, limit in ((stream(1), None), (stream(9), 0)):
        with pytest.raises(ValueError, match="expected at least one token"):
            next(evaluation_windows(split, 5, 3, limit))


LENGTHS = (13, 1, 38, 6, 12, 2)
"""Documents with 12, 0, 37, 5, 11 and 1 targets."""


def windows_by_rounds(lengths: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Document, first input and number of targets of each window of 5, in order."""
    rounds = range(max(lengths))
    return [
        (document, 5 * turn, min(5, length - 1 - 5 * turn))
        for turn in rounds
        for document, length in enumerate(lengths)
        if length - 1 > 5 * turn
    ]


@pytest.mark.parametrize("sequences", [1, 3, 32])
@pytest.mark.parametrize("limit", [None, 1, 4, 5, 6, 21, 22, 25, 26, 65, 66, 1000])
def test_document_windows_come_in_rounds(sequences: int, limit: int | None) -> None:
    split = stream(*LENGTHS)
    expected, total = [], 0
    for document, begin, targets in windows_by_rounds(LENGTHS):
        if limit is not None and total + targets > limit:
            if not expected:
                expected = [(document, begin, limit)]
            break
        expected.append((document, begin, targets))
        total += targets
    found = []
    for tokens, document, mask in document_windows(split, 5, sequences, limit):
        assert tokens.shape == (sequences, 6)
        assert document.shape == mask.shape == (sequences, 5)
        assert tokens.dtype == document.dtype == np.int64
        assert (document[~mask] == -1).all()
        assert (tokens[:, 1:][~mask] == 0).all()
        for row, owner, kept in zip(tokens, document, mask, strict=True):
            count = int(kept.sum())
            assert kept[:count].all()
            if count:
                (one,) = set(owner[:count].tolist())
                begin = int(row[0]) - 1
                assert row[: count + 1].tolist() == split.tokens[begin:][: count + 1].tolist()
                found.append((one, begin - int(split.offsets[one]), count))
    assert found == expected


def test_document_windows_hold_each_target_once() -> None:
    split = stream(*LENGTHS)
    parts = [tokens[:, 1:][mask] for tokens, _, mask in document_windows(split, 5, 4)]
    targets = np.sort(np.concatenate(parts))
    # All but the first token of each document.
    assert targets.tolist() == np.sort(np.delete(split.tokens, split.offsets[:-1])).tolist()


def test_document_windows_without_targets() -> None:
    for split, limit in ((stream(1, 1), None), (stream(9, 4), 0)):
        with pytest.raises(ValueError, match="expected at least one token"):
            next(document_windows(split, 5, 3, limit))


@pytest.mark.parametrize("at_once", [1, 2, 5, 256])
@pytest.mark.parametrize("length", [5, 37])
def test_whole_windows_leave_out_what_is_shorter(
    length: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_LOOKED_AT", at_once)
    counts = [(one - 1) // length for one in LENGTHS]
    whole = WholeWindows(stream(*LENGTHS), length)
    assert whole.windows == sum(counts)
    document, nth, slack = whole.find(np.arange(whole.windows))
    assert document.tolist() == np.repeat(np.arange(len(LENGTHS)), counts).tolist()
    assert nth.tolist() == [i for count in counts for i in range(count)]
    assert slack.tolist() == [(LENGTHS[one] - 1) % length for one in document]


def test_no_whole_window() -> None:
    with pytest.raises(ValueError, match="longest document has 38 tokens; expected one of more"):
        WholeWindows(stream(*LENGTHS), 38)
