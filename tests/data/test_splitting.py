import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data import splitting
from isoflop.data.pieces import cut
from isoflop.data.splitting import TEST, TRAIN, VALIDATION, assign, digest


def split(texts: list[bytes], validation: float = 0.1, test: float = 0.2, seed: int = 0) -> list:
    splits = np.zeros(len(texts), dtype=np.uint8)
    assign(
        np.frombuffer(b"".join(map(digest, texts)), np.uint8).reshape(-1, 16),
        np.array([len(text) for text in texts]),
        splits,
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
    )
    return splits.tolist()


def some_texts(count: int) -> list[bytes]:
    rng = random.Random(0)
    return [b"%d " % i * rng.randint(1, 200) for i in range(count)]


def share(texts: list[bytes], splits: list[int], which: int) -> float:
    return sum(len(t) for t, s in zip(texts, splits, strict=True) if s == which) / sum(
        map(len, texts)
    )


def test_fractions_are_of_bytes() -> None:
    texts = some_texts(500)
    splits = split(texts)
    assert share(texts, splits, VALIDATION) == pytest.approx(0.1, abs=0.01)
    assert share(texts, splits, TEST) == pytest.approx(0.2, abs=0.01)


def test_split_goes_by_content_not_by_order() -> None:
    texts = some_texts(50)
    by_text = dict(zip(texts, split(texts), strict=True))
    shuffled = random.Random(1).sample(texts, len(texts))
    assert split(shuffled) == [by_text[text] for text in shuffled]


def test_seed_changes_the_split() -> None:
    texts = some_texts(50)
    assert split(texts, seed=1) != split(texts, seed=0) == split(texts, seed=0)


def test_one_more_document_moves_few_others() -> None:
    texts = some_texts(500)
    before = split(texts)
    after = split([*texts, b"new"])[:-1]
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 4


def test_copies_share_a_split() -> None:
    texts = some_texts(20)
    splits = split(texts * 3)
    assert splits[:20] == splits[20:40] == splits[40:]


def test_huge_document_is_for_training() -> None:
    for seed in range(20):
        splits = split([*some_texts(50), b"x" * 1_000_000], 0.001, 0.001, seed)
        assert splits[-1] == TRAIN


@given(
    st.lists(st.binary(min_size=1, max_size=9), min_size=3, max_size=12, unique=True),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
)
def test_no_split_is_empty(texts: list[bytes], validation: float, test: float) -> None:
    assert set(split(texts, validation, test)) == {TRAIN, VALIDATION, TEST}


def test_few_documents_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    digests[:-1:7] = digests[1::7]
    sizes = rng.integers(1, 9000, count)
    at_once, in_parts = np.zeros((2, count), dtype=np.uint8)
    options = {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 3}
    assign(digests, sizes, at_once, **options)
    monkeypatch.setattr(splitting, "HELD", 500)
    tracemalloc.start()
    assign(digests, sizes, in_parts, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(in_parts, at_once)
    assert peak < 8 * count  # not so much as a number for each


def test_two_distinct_documents_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="2 distinct documents; expected at least 3"):
        split([b"a", b"b", b"a"])


@given(st.text(max_size=300))
def test_pieces_join_up_and_are_text(text: str) -> None:
    pieces = cut(text.encode())
    assert b"".join(pieces) == text.encode()
    assert all(piece.decode() for piece in pieces)


def test_number_of_pieces() -> None:
    rng = np.random.default_rng(0)
    for size, fewest, most in ((100, 10, 20), (10_000, 14, 20), (10_000_000, 150, 200)):
        words = rng.choice(list(b"abcde fgh ij \n"), size).astype(np.uint8).tobytes()
        pieces = cut(words)
        assert fewest <= len(pieces) <= most + 1
