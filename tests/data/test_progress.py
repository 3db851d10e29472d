"""What is told of a preparation while it goes on, and how much text a vocabulary is learnt from."""

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.config import DataConfig
from isoflop.data import BpeTokenizer, Preparing, preparation, prepare, text


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = ({"text": f"Document {i} of some words. " * (i % 9 + 1)} for i in range(400))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(
    corpus: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> list[Preparing]:
    monkeypatch.setattr(preparation, "SECONDS_BETWEEN", 0.0)
    config = DataConfig(corpus=str(corpus), tokenizer=tokenizer, sequence_length=8)
    heard: list[Preparing] = []
    store = prepare(config, tmp_path / "cache", tell=heard.append)
    assert heard[-1].tokens == sum(one["tokens"] for one in store.manifest["splits"].values())
    assert heard[-1].done == heard[-1].total
    again = len(heard)
    prepare(config, tmp_path / "cache", tell=heard.append)
    assert len(heard) == again
    return heard


def test_each_reading_is_told(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = told(corpus, tmp_path, monkeypatch, "bpe:300")
    doing = list(dict.fromkeys(one.doing for one in heard))
    assert doing == ["reading", "learning the vocabulary", "tokenising"]
    first = heard[0]
    assert first.tokens is None
    assert first.total == corpus.stat().st_size
    assert "\n" not in first.words
    elsewhere = told(f"file://{corpus}", tmp_path, monkeypatch, "bytes")[0]
    assert elsewhere.total is None
    assert "%" not in elsewhere.words


def test_ids_are_told_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.arange(3000))
    heard = told(tmp_path / "a.npy", tmp_path, monkeypatch, "ids:3000")
    assert {one.doing for one in heard} == {"reading ids"}
    assert {one.total for one in heard} == {3000}


def test_words() -> None:
    now = Preparing("tokenising", done=250_000_000, total=10**9, tokens=60_000_000, seconds=30.0)
    assert now.words == "tokenising, 60M tokens, 2M a second, 25%, about 1 min 30 s left"
    unknown = Preparing("reading", done=2_500_000, total=None, tokens=None, seconds=9.0)
    assert unknown.words == "reading, 2.5M bytes of text"


@pytest.mark.parametrize("limit", [4000, 10**9])
def test_a_vocabulary_is_learnt_from_bounded_text(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    seen: list[bytes] = []
    train = BpeTokenizer.train

    def spied(texts: object, vocabulary: int) -> BpeTokenizer:
        seen.extend(texts)  # type: ignore[call-overload]
        return train(iter(seen), vocabulary)

    monkeypatch.setattr(BpeTokenizer, "train", spied)
    monkeypatch.setattr(text, "SAMPLE_BYTES", limit)
    config = DataConfig(corpus=str(corpus), tokenizer="bpe:270", sequence_length=8)
    store = prepare(config, tmp_path / "cache")
    assert sum(map(len, seen)) <= limit
    everything = store.manifest["splits"]["train"]
    if limit == 4000:
        # From everywhere, and about as much as is allowed.
        assert sum(map(len, seen)) > 0.6 * limit
        numbers = [int(text.split()[1]) for text in seen]
        assert numbers[0] < 100
        assert numbers[-1] > 300
        assert store.manifest["learnt_from_bytes"] == limit
    else:
        assert sum(map(len, seen)) == everything["bytes"]
        assert len(seen) == everything["documents"]
        assert "learnt_from_bytes" not in store.manifest
