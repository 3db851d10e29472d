import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data.tokenizer import END, BpeTokenizer, ByteTokenizer

TEXTS = [
    b"the cat sat on the mat, the dog sat on the log. " * 20,
    "d\u00e9j\u00e0 vu\r\n\t".encode() * 9,
]


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return BpeTokenizer.train(iter(TEXTS), 280)


clean_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(clean_text)
def test_bytes_round_trip(text: str) -> None:
    tokenizer = ByteTokenizer()
    (ids,) = tokenizer.encode([text.encode()])
    assert tokenizer.decode(ids) == text.encode()
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert not (ids == 0).any()


@given(clean_text)
def test_bpe_round_trip_and_byte_count(text: str) -> None:
    tokenizer = BpeTokenizer.train(iter(TEXTS), 280)
    (ids,) = tokenizer.encode([text.encode()])
    assert tokenizer.decode(ids) == text.encode()
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert not (ids == 0).any()


def test_ids_that_only_a_padded_embedding_has_are_no_text(bpe: BpeTokenizer) -> None:
    (ids,) = bpe.encode([b"the state"])
    assert bpe.decode([*ids.tolist(), bpe.vocabulary, bpe.vocabulary + 60]) == b"the state"
    assert ByteTokenizer().decode([*b"the state", 256, 290]) == b"the state"


def test_bpe_has_the_size_asked_for_and_compresses(bpe: BpeTokenizer) -> None:
    assert bpe.vocabulary == len(bpe.token_bytes) == 280
    assert bpe.token_bytes[0] == 0
    (ids,) = bpe.encode(TEXTS[:1])
    assert ids.dtype == np.uint16
    assert len(ids) < len(TEXTS[0]) / 2


def test_the_end_mark_in_a_text_is_ordinary_text(bpe: BpeTokenizer) -> None:
    (ids,) = bpe.encode([f"a{END}b".encode()])
    assert 0 not in ids
    assert bpe.decode([*ids, 0]) == f"a{END}b".encode()


def test_written_tokenizer_is_the_same(bpe: BpeTokenizer, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(bpe.specification, encoding="utf-8")
    loaded = BpeTokenizer.load(tmp_path / "t.json")
    for one, other in zip(bpe.encode(TEXTS), loaded.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(one, other)
    assert 0 not in loaded.encode([END.encode()])[0]


def test_training_is_deterministic_across_processes_and_threads(bpe: BpeTokenizer) -> None:
    program = (
        "import sys; from isoflop.data.tokenizer import BpeTokenizer;"
        f"sys.stdout.write(BpeTokenizer.train(iter({TEXTS!r}), 280).specification)"
    )
    for threads in ("1", "3"):
        output = subprocess.run(
            [sys.executable, "-c", program],
            env={"RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        )
        assert output.stdout.decode() == bpe.specification


def test_too_little_text_for_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"'bpe:4000', but the training split yields only \d+ ids"):
        BpeTokenizer.train(iter([b"abc abc"]), 4000)
