"""Text that is large: cut without a trace, gone on with where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.config import DataConfig
from isoflop.data import BpeTokenizer, Preparing, locate, pieces, preparation, prepare, text
from isoflop.data.corpora import documents
from isoflop.data.pieces import FileText, blocks, cut, segments

SMALL = 64
"""Bytes of a segment, so that small texts are large."""

BPE = BpeTokenizer.train(iter([b"don't let us over-simplify it, it's  so\n\n x \n y " * 9]), 280)
WORDS = (
    "a",
    "don't",
    "it's",
    "123",
    "!?",
    "é",
    "日本",
    "\u3000",
    "\u00a0",
    "\u2028",
    "\x1c",
    "'",
    "'s",
)
GAPS = (" ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "")


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), min_size=40, max_size=120)
)
def test_segments_give_the_tokens_of_the_whole(pairs: list[tuple[str, str]]) -> None:
    text = "".join(word + gap for word, gap in pairs).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "SEGMENT", SMALL)
        parts = list(segments(text))
    assert b"".join(parts) == text
    found = [one for ids in BPE.encode(parts) for one in ids.tolist()]
    assert found == BPE.encode([text])[0].tolist()


def test_a_large_text_is_cut_often_and_one_without_gaps_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "SEGMENT", SMALL)
    parts = list(segments(b"word after word, " * 100))
    assert max(map(len, parts)) <= 2 * SMALL
    assert list(segments(b"x" * 1000)) == [b"x" * 1000]


def test_a_file_is_cut_as_its_text_is(tmp_path: Path) -> None:
    text = ("One é line.\n\nAnd another one, " * 3000).encode()
    (tmp_path / "a").write_bytes(text)
    parts = cut(FileText(str(tmp_path / "a"), 0, len(text)))
    assert [b"".join(blocks(part)) for part in parts] == cut(text)
    (tmp_path / "a").write_bytes(text[:100])
    with pytest.raises(ValueError, match="changed while it was read"):
        list(blocks(parts[-1]))


@pytest.mark.parametrize(
    ("content", "offset"),
    [(b"\xc3", 301), (b"ab\xff" + b"c" * 99, 303), (b"\xe6\x97", 301), (b"a\0", 302)],
)
def test_what_is_wrong_in_a_large_file_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, offset: int
) -> None:
    for module in ("pieces", "readers"):
        monkeypatch.setattr(f"isoflop.data.{module}.SEGMENT", SMALL)
    (tmp_path / "a.txt").write_bytes("aé".encode() * 100 + b"e" + content)
    with pytest.raises(ValueError, match=rf"offset {offset}\b"):
        list(documents(locate(DataConfig(corpus=str(tmp_path / "a.txt"))), Counter()))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents of which some are many segments, told of at every batch and saved as often."""
    for module in ("pieces", "readers"):
        monkeypatch.setattr(f"isoflop.data.{module}.SEGMENT", 1000)
    monkeypatch.setattr(text, "BATCH_BYTES", 1000)
    monkeypatch.setattr(text, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(preparation, "SECONDS_BETWEEN", 0.0)
    path = tmp_path / "corpus.jsonl"
    rows = ({"text": f"Document {i}, some words. " * (i * i % 70 + 1)} for i in range(30))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data(corpus: Path, tokenizer: str = "bpe:270") -> DataConfig:
    return DataConfig(corpus=str(corpus), tokenizer=tokenizer, sequence_length=8)


class Stop(Exception):
    """What ends a preparation in the middle."""


def until_half(now: Preparing) -> None:
    if now.tokens is not None and now.total is not None and now.done > now.total / 2:
        raise Stop


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:270"])
def test_what_was_stopped_is_gone_on_with(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> None:
    config = data(corpus, tokenizer)
    whole = prepare(config, tmp_path / "whole")
    with pytest.raises(Stop):
        prepare(config, tmp_path / "cache", tell=until_half)
    for name in ("survey", "_sample"):
        monkeypatch.setattr(text, name, None)  # is not done again
    heard: list[Preparing] = []
    store = prepare(config, tmp_path / "cache", tell=heard.append)
    assert store.sha256 == whole.sha256
    assert {one.doing for one in heard} == {"tokenising"}
    assert 0.2 < heard[0].before[0] / heard[0].total < heard[0].done / heard[0].total < 0.6
    assert {path.name for path in store.folder.parent.iterdir()} <= {"tokens", "lock"}
    for path in whole.folder.iterdir():
        assert path.read_bytes() == (store.folder / path.name).read_bytes()


@pytest.mark.parametrize("damage", ["state.json", "tokens/train.tokens", "digests"])
def test_what_was_saved_and_is_damaged_is_not_gone_on_with(
    corpus: Path, tmp_path: Path, damage: str
) -> None:
    config, cache = data(corpus), tmp_path / "cache"
    whole = prepare(config, tmp_path / "whole")
    with pytest.raises(Stop):
        prepare(config, cache, tell=until_half)
    (path,) = cache.glob(f"*/unfinished/{damage}")
    path.write_bytes(path.read_bytes()[:7])
    if damage.startswith("tokens"):
        with pytest.raises(ValueError, match=r"fewer than .* bytes; run the same command again"):
            prepare(config, cache)
    assert prepare(config, cache).sha256 == whole.sha256


def test_nothing_is_left_of_what_was_not_worth_saving(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "SECONDS_BETWEEN_SAVES", 30.0)
    with pytest.raises(Stop):
        prepare(data(corpus), tmp_path / "cache", tell=until_half)
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] in ([], ["lock"])


PROGRAM = """
import re, sys
from pathlib import Path
from isoflop.config import DataConfig
from isoflop.data import pieces, preparation, prepare, readers
from isoflop.data import text
text.SAMPLE_BYTES = 1 << 18
pieces.SEGMENT = readers.SEGMENT = text.BATCH_BYTES = 1 << 16
preparation.SECONDS_BETWEEN = 0.01
def held(*_):  # not what is mapped from files, which the system takes back
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
config = DataConfig(corpus=sys.argv[1], tokenizer=sys.argv[2], sequence_length=8)
seen = [held()]
prepare(config, Path(sys.argv[3]), tell=lambda _: seen.append(held()))
print(max(seen) - seen[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is not told here")
@pytest.mark.parametrize(
    ("kind", "tokenizer", "sizes"),
    [("txt", "bytes", (8, 40)), ("jsonl", "bytes", (8, 40)), ("jsonl", "bpe:300", (1, 6))],
)
def test_memory_does_not_grow_with_the_text(
    tmp_path: Path, kind: str, tokenizer: str, sizes: tuple[int, int]
) -> None:
    grown = []
    for size in sizes:
        path = tmp_path / f"{size}.{kind}"
        with path.open("w") as file:
            for number in range(size * 2000):
                text = f"Line {number % 500} of a text, with words. " * 14
                file.write(text + "\n" if kind == "txt" else json.dumps({"text": text}) + "\n")
        command = [sys.executable, "-c", PROGRAM, str(path), tokenizer, str(tmp_path / "cache")]
        grown.append(int(subprocess.run(command, check=True, capture_output=True).stdout))
    # Held whole it would be there as bytes and as characters at least, twice as much as it is.
    assert grown[1] - grown[0] < 0.6e6 * (sizes[1] - sizes[0]), grown
