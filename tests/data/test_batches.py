import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_split import stream

from isoflop.data import Batches
from isoflop.data.batches import draw, permute


def one_epoch(batches: Batches, sequences: int, epoch: int = 0) -> np.ndarray:
    """First tokens of the windows of an epoch; the epoch must be whole steps."""
    steps = batches.windows // sequences
    return np.concatenate([batches.batch(epoch * steps + i)[:, 0] for i in range(steps)])


@given(st.integers(1, 700), st.integers(0, 2**70), st.integers(0, 5))
def test_permutation_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    index = np.arange(size)
    image = permute(index, size, seed, np.full(size, epoch))
    np.testing.assert_array_equal(np.sort(image), index)


def test_permutation_looks_random() -> None:
    size = 1000
    index = np.arange(size)
    images = np.stack([permute(index, size, seed, index * 0) for seed in range(200)])
    assert len(np.unique(images, axis=0)) == 200
    # Mean and spread of where index 0 goes, and no link with where its neighbour goes.
    assert abs(images[:, 0].mean() - 500) < 4 * 289 / 200**0.5
    assert abs(np.corrcoef(images[:, 0], images[:, 1])[0, 1]) < 0.3
    assert abs(np.corrcoef(index, images[0])[0, 1]) < 0.15
    # A random permutation has one fixed point on average.
    assert 0.7 < (images == index).sum(axis=1).mean() < 1.3


def test_permutation_of_one_index_needs_no_others() -> None:
    size = 10**12
    image = permute(np.array([0, size - 1]), size, 3, np.array([0, 0]))
    assert ((image >= 0) & (image < size)).all()


def test_epochs_have_different_orders_and_seeds_too() -> None:
    split = stream(101)
    batches = Batches(split, 5, 4, seed=0)
    first, second = one_epoch(batches, 4), one_epoch(batches, 4, epoch=1)
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()
    assert one_epoch(Batches(split, 5, 4, seed=1), 4).tolist() != first.tolist()
    assert batches.epochs(10) == 2.0


def test_order_is_pinned() -> None:
    # Another process or release with another order could not resume a run exactly.
    found = permute(np.arange(9), 1000, 5, np.arange(9)).tolist()
    assert found == [761, 647, 55, 61, 913, 825, 294, 390, 224]
    item = np.arange(9)
    drawn = draw(np.full(9, 999), 5, item, item).tolist()
    assert drawn == [518, 941, 819, 635, 132, 298, 225, 331, 694]
    assert Batches(stream(40, 61), 5, 4, seed=7).batch(6)[:, 0].tolist() == [26, 61, 96, 86]
    within = Batches(stream(11, 20, 7, 3, 19), 5, 9, 7, "documents")
    assert within.batch(6)[:, 0].tolist() == [53, 48, 1, 43, 33, 22, 6, 12, 17]


def test_split_shorter_than_a_window() -> None:
    assert Batches(stream(6), 5, 2, seed=0).windows == 1
    with pytest.raises(ValueError, match="sequence_length is 5, but the split has 5 tokens"):
        Batches(stream(5), 5, 2, seed=0)


def test_bytes_of_text_leave_out_the_ends_of_documents() -> None:
    assert stream(7, 5, 3).bytes == 12


# Documents whose slack, for windows of 5, is 0, 4, 1, 2 and 3; the fourth holds no window.
DOCUMENTS = (11, 20, 7, 3, 19)
WHOLE = 2 + 3 + 1 + 0 + 3


def document_of(row: np.ndarray) -> tuple[int, int]:
    """The document that a row was cut from, and where in it the row begins."""
    # Ids tell the position, from 1; the end of a document, 0, comes last in it if at all.
    begin = int(row[0]) - 1
    offsets = np.cumsum([0, *DOCUMENTS])
    document = int(np.searchsorted(offsets, begin, side="right")) - 1
    return document, begin - int(offsets[document])


def epoch_of_documents(epoch: int, seed: int = 0) -> dict[int, list[int]]:
    """Where the windows of an epoch begin in each document."""
    batches = Batches(stream(*DOCUMENTS), 5, WHOLE, seed, "documents")
    assert batches.windows == WHOLE
    found: dict[int, list[int]] = {}
    for row in batches.batch(epoch):
        document, begin = document_of(row)
        found.setdefault(document, []).append(begin)
    return {document: sorted(begins) for document, begins in sorted(found.items())}


def test_windows_lie_within_documents() -> None:
    split = stream(*DOCUMENTS)
    batches = Batches(split, 5, 4, 3, "documents")
    for row in np.concatenate([batches.batch(step) for step in range(60)]):
        document, begin = document_of(row)
        start = int(split.offsets[document]) + begin
        np.testing.assert_array_equal(row, split.tokens[start : start + 6])
        assert start + 6 <= split.offsets[document + 1]
        # Id 0 is the end of a document, so it is a target at most.
        assert (row[:-1] != 0).all()


def test_offsets_cover_the_slack_over_epochs() -> None:
    epochs = 400
    seen = [epoch_of_documents(epoch) for epoch in range(epochs)]
    for document, slack in ((0, 0), (1, 4), (2, 1), (4, 3)):
        offsets = np.array([found[document][0] for found in seen])
        counts = np.bincount(offsets, minlength=slack + 1)
        assert len(counts) == slack + 1
        share = 1 / (slack + 1)
        # Five standard deviations of a binomial count.
        spread = 5 * (epochs * share * (1 - share)) ** 0.5
        assert np.abs(counts - epochs * share).max() <= spread
    # Documents draw apart from each other, and seeds too.
    first, second = (np.array([found[d][0] for found in seen]) for d in (1, 4))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25
    assert any(epoch_of_documents(epoch, seed=1) != seen[epoch] for epoch in range(3))


def test_documents_shorter_than_a_window() -> None:
    assert Batches(stream(4, 6, 5), 5, 2, 0, "documents").windows == 1
    with pytest.raises(ValueError, match=r"sequence_length is 5, but the longest document has 5"):
        Batches(stream(4, 5, 3), 5, 2, 0, "documents")
