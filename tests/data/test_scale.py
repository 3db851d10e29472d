"""Stores of ten thousand million tokens: what is held of them does not grow with them."""

import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from isoflop.data import Batches, TokenStore, document_windows, evaluation_windows
from isoflop.data.store import SPLITS, describe, write_description

TOKENS, DOCUMENTS, LENGTH = 10**10, 10**6, 256
ONE_ARRAY = 8 * DOCUMENTS
"""Bytes of a number for each document; one for each window would be 40 times as large."""


def sparse(path: Path, dtype: str) -> None:
    """Zeros that take no room on the disk, and a last id that is none."""
    size = np.dtype(dtype).itemsize
    with open(path, "wb") as file:
        file.truncate(TOKENS * size)
        file.seek((TOKENS - 1) * size)
        file.write(np.array([7], dtype).tobytes())


@pytest.fixture(scope="module", params=["own 16", "own 32", "others' 16", "others' 32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    own, vocabulary, dtype = "own" in request.param, 50_304, "<u2"
    if "32" in request.param:
        vocabulary, dtype = 128_256, "<u4"
    counts = {"tokens": TOKENS, "documents": DOCUMENTS, "bytes": 0, "sha256": ""}
    splits = {name: {**counts, "stretches": [[0, 0, TOKENS]]} for name in SPLITS}
    extra = {"tokenizer": "bpe" if own else "ids:50304", "corpora": []}
    if not own:
        path = folder / "other"
        sparse(path, dtype)
        extra["files"] = [{"path": str(path), "dtype": dtype, "offset": 0, "tokens": TOKENS}]
    write_description(folder, {**describe(vocabulary, splits, "x"), **extra})
    ends = np.arange(0, TOKENS + 1, TOKENS // DOCUMENTS)
    ends.astype("<i8").tofile(folder / "train.offsets")
    if own:
        sparse(folder / "train.tokens", dtype)
        for name, length in (("train.bytes", DOCUMENTS), ("token_bytes", vocabulary)):
            np.zeros(length, dtype="<i8").tofile(folder / name)
    return folder


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_opening_and_batches_hold_no_array_of_documents(folder: Path) -> None:
    split = TokenStore.open(folder).split("train")
    assert (len(split.tokens), split.documents) == (TOKENS, DOCUMENTS)
    assert split.stream[np.array([0, TOKENS - 1])].tolist() == [0, 7]
    for windows in ("stream", "documents"):
        batches = Batches(split, LENGTH, 8, 0, windows)
        assert batches.windows == (
            (TOKENS - 1) // LENGTH if windows == "stream" else DOCUMENTS * (9999 // LENGTH)
        )
        for step in (0, 10**6, 10**12):
            assert batches.batch(step).shape == (8, LENGTH + 1)
    for read in (evaluation_windows, document_windows):
        assert len(list(islice(read(split, LENGTH, 8), 3))) == 3
        assert sum(mask.sum() for *_, mask in read(split, LENGTH, 8, 4000)) in (4000, 3840)
    assert tracemalloc.get_traced_memory()[1] < ONE_ARRAY
