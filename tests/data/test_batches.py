import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data import Batches, TokenSplit, evaluation_windows
from isoflop.data.permutation import permute


def stream(*lengths: int) -> TokenSplit:
    """Documents of the given numbers of tokens, end included; ids tell the position."""
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(1, offsets[-1] + 1, dtype=np.uint16)
    tokens[offsets[1:] - 1] = 0
    token_bytes = np.ones(int(offsets[-1]) + 1, dtype=np.int64)
    token_bytes[0] = 0
    return TokenSplit(tokens, offsets, np.array(lengths) - 1, token_bytes)


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


def test_windows_tile_the_stream() -> None:
    split = stream(13, 50, 40)
    batches = Batches(split, 5, 4, seed=7)
    assert batches.windows == 20
    rows = np.concatenate([batches.batch(i) for i in range(5)])
    rows = rows[np.argsort(rows[:, 1])]
    assert rows.shape == (20, 6)
    assert rows.dtype == np.int64
    targets = sorted(np.concatenate(rows[:, 1:]).tolist())
    assert targets == sorted(split.tokens[1:101].tolist())
    for row in rows:
        start = int(max(row) - np.argmax(row)) - 1
        np.testing.assert_array_equal(row, split.tokens[start : start + 6])


def test_epochs_have_different_orders_and_seeds_too() -> None:
    split = stream(101)
    batches = Batches(split, 5, 4, seed=0)
    first, second = one_epoch(batches, 4), one_epoch(batches, 4, epoch=1)
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()
    assert one_epoch(Batches(split, 5, 4, seed=1), 4).tolist() != first.tolist()
    assert batches.epochs(10) == 2.0


def test_batch_spans_epochs_without_dropping() -> None:
    batches = Batches(stream(36), 5, 3, seed=0)
    assert batches.windows == 7
    firsts = np.concatenate([batches.batch(i)[:, 0] for i in range(7)])
    for epoch in range(3):
        assert sorted(firsts[7 * epoch : 7 * epoch + 7]) == [1, 6, 11, 16, 21, 26, 31]


def test_batch_is_a_function_of_seed_and_step() -> None:
    split = stream(1001)
    forwards = [Batches(split, 5, 4, seed=3).batch(i) for i in range(6)]
    resumed = Batches(split, 5, 4, seed=3)
    for step in (5, 4, 5, 3):
        np.testing.assert_array_equal(resumed.batch(step), forwards[step])


def test_order_is_pinned() -> None:
    # Another process or release with another order could not resume a run exactly.
    found = permute(np.arange(9), 1000, 5, np.arange(9)).tolist()
    assert found == [761, 647, 55, 61, 913, 825, 294, 390, 224]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_make_up_the_batch_in_order(world: int) -> None:
    batches = Batches(stream(1001), 5, 6, seed=0)
    for step in (0, 33):
        parts = [batches.batch(step, rank, world) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(parts), batches.batch(step))


def test_ranks_that_do_not_divide_the_batch() -> None:
    with pytest.raises(ValueError, match="4 ranks share 6 sequences"):
        Batches(stream(1001), 5, 6, seed=0).batch(0, 0, 4)


def test_split_shorter_than_a_window() -> None:
    assert Batches(stream(6), 5, 2, seed=0).windows == 1
    with pytest.raises(ValueError, match="sequence_length is 5, but the split has 5 tokens"):
        Batches(stream(5), 5, 2, seed=0)


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


def test_evaluation_without_targets() -> None:
    for split, limit in ((stream(1), None), (stream(9), 0)):
        with pytest.raises(ValueError, match="expected at least one token"):
            next(evaluation_windows(split, 5, 3, limit))


def test_bytes_of_a_stretch() -> None:
    split = stream(7, 5, 3)
    assert split.bytes == 12
    assert split.count_bytes(0, 15) == 12
    assert split.count_bytes(0, 7) == split.count_bytes(0, 6) == 6
    assert split.count_bytes(6, 8) == 1
