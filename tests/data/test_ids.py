"""Files of token ids that others made, and the stores that point at them."""

from pathlib import Path

import numpy as np
import pytest

from isoflop.config import DataConfig
from isoflop.data import Batches, TokenStore, evaluation_windows, locate, prepare
from isoflop.data.ids import build as building
from isoflop.data.ids import files, id_file
from isoflop.storage import verify_folder

SPLITS = ("train", "validation", "test")
MAGICS = {"<u2": (20240520, 1), "<u4": (20240801, 7)}


def ids_of(count: int, vocabulary: int = 500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, vocabulary, count)


def header(magic: int, version: int, tokens: int) -> bytes:
    numbers = np.zeros(256, "<i4")
    numbers[:3] = magic, version, tokens
    return numbers.tobytes()


def save(path: Path, ids: np.ndarray, dtype: str, *, headed: bool = False) -> Path:
    if path.suffix == ".npy":
        np.save(path, ids.astype(dtype))
    else:
        head = header(*MAGICS[dtype], len(ids)) if headed else b""
        path.write_bytes(head + ids.astype(dtype).tobytes())
    return path


def data(corpus: Path, tokenizer: str = "ids:500", **changes: object) -> DataConfig:
    return DataConfig(
        **{"corpus": str(corpus), "tokenizer": tokenizer, "sequence_length": 8, **changes}
    )


def read(store: TokenStore, name: str) -> np.ndarray:
    split = store.split(name)
    return split.stream[np.arange(len(split.tokens))]


FORMATS = [
    ("a.bin", "<u2", False),
    ("a.bin", "<u2", True),
    ("a.bin", "<u4", True),
    ("a.npy", "<u2", False),
    ("a.npy", "<u4", False),
    ("a.npy", "<i4", False),
    ("a.npy", "<i8", False),
]


@pytest.mark.parametrize(("name", "dtype", "headed"), FORMATS)
def test_every_format_gives_the_same_store(
    tmp_path: Path, name: str, dtype: str, headed: bool
) -> None:
    ids = ids_of(997)
    plain = prepare(data(save(tmp_path / "plain.bin", ids, "<u2")), tmp_path / "cache")
    store = prepare(data(save(tmp_path / name, ids, dtype, headed=headed)), tmp_path / "cache")
    assert store.sha256 == plain.sha256
    found = [read(store, split) for split in SPLITS]
    assert sorted(np.concatenate(found).tolist()) == sorted(ids.tolist())
    for split, same in zip(SPLITS, found, strict=True):
        np.testing.assert_array_equal(read(plain, split), same)
        assert 0 < len(same) == store.manifest["splits"][split]["tokens"]
    verify_folder(store.folder)
    # Nothing was copied.
    assert sum(path.stat().st_size for path in store.folder.iterdir()) < 6000


def test_batches_and_windows_are_those_of_the_tokens(tmp_path: Path) -> None:
    store = prepare(data(save(tmp_path / "a.npy", ids_of(997), "<i8")), tmp_path / "cache")
    split, tokens = store.split("train"), read(store, "train")
    batches = Batches(split, 8, 5, seed=3)
    starts = {tuple(tokens[i : i + 9]) for i in range(0, len(tokens) - 8, 8)}
    rows = np.concatenate([batches.batch(step) for step in range(batches.windows // 5)])
    assert rows.dtype == np.int64
    assert {tuple(row) for row in rows} <= starts
    first = next(iter(evaluation_windows(split, 8, 2)))[0]
    np.testing.assert_array_equal(first[0], tokens[:9])
    assert split.bytes == 0
    assert split.documents == len(split.document_bytes)


def test_an_end_of_text_id_makes_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks that end amid documents must not show.
    monkeypatch.setattr(files, "_BLOCK", 7)
    ids = ids_of(900)
    ids[np.arange(12, 900, 13)] = 0
    store = prepare(data(save(tmp_path / "a.bin", ids, "<u2"), "ids:500:0"), tmp_path / "cache")
    for name in SPLITS:
        split, tokens = store.split(name), read(store, name)
        assert np.diff(split.offsets).max() == 13
        ends = split.offsets[1:] - 1
        # All but the tail of the file.
        assert (tokens[ends] == 0).sum() >= len(ends) - 1
        assert (tokens == 0).sum() == (tokens[ends] == 0).sum()
    bare = prepare(data(tmp_path / "a.bin"), tmp_path / "cache")
    assert bare.sha256 != store.sha256
    assert bare.documents < store.documents
    within = prepare(data(tmp_path / "a.bin", "ids:500:0", windows="documents"), tmp_path / "cache")
    for row in Batches(within.split("train"), 8, 20, 0, "documents").batch(0):
        assert (row[:-1] != 0).all()


def test_a_folder_of_shards(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    (folder / "sub").mkdir(parents=True)
    parts = [ids_of(300, seed=seed) for seed in range(3)]
    save(folder / "0.bin", parts[0], "<u2", headed=True)
    save(folder / "sub" / "2.bin", parts[2], "<u2")
    save(folder / "1.npy", parts[1], "<i4")
    (folder / "readme.txt").write_text("what this is")
    (corpus,) = locate(data(folder))
    assert [one.name for one in corpus.sources] == ["0.bin", "1.npy", "sub/2.bin"]
    store = prepare(data(folder), tmp_path / "cache")
    found = np.concatenate([read(store, name) for name in SPLITS])
    assert sorted(found.tolist()) == sorted(np.concatenate(parts).tolist())
    both = DataConfig(
        corpus=(str(folder / "1.npy"), str(folder / "*.bin")),
        tokenizer="ids:500",
        sequence_length=8,
    )
    assert sum(len(read(prepare(both, tmp_path / "cache"), name)) for name in SPLITS) == 600


BAD = [
    ("odd.bin", b"abc", "has 3 bytes; expected an even number"),
    ("empty.bin", b"", "holds no token ids"),
    ("none.bin", header(20240520, 1, 0), "holds no token ids"),
    ("version.bin", header(20240520, 2, 1) + b"ab", "is of version 2 .* expected 1"),
    ("llama.bin", header(20240801, 1, 1) + b"abcd", "is of version 1 .* expected 7"),
    ("short.bin", header(20240520, 1, 5) + b"ab", r"has 1026 bytes; expected 1034"),
    ("long.bin", header(20240801, 7, 1) + bytes(8), r"has 1032 bytes; expected 1028"),
    ("negative.bin", header(20240520, 1, -4), "holds no token ids"),
    ("evaluation.bin", header(20240522, 1, 5) + bytes(100), "begins with the magic 20240522"),
    ("cut.bin", header(20240520, 1, 5)[:100], "begins with the magic 20240520"),
    ("text.npy", b"some text that is no array", "is no .npy file"),
    ("empty.npy", b"", "is no .npy file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[one[0] for one in BAD])
def test_bad_files_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(data(tmp_path / name), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(9), "holds float64"),
        (np.zeros((3, 3), "<u2"), r"of shape \(3, 3\)"),
        (np.zeros(9, ">u2"), "little-endian"),
        (np.zeros(9, "u1"), "holds uint8"),
        (np.array(5, "<u2"), r"of shape \(\)"),
        (np.zeros(0, "<u2"), "holds no token ids"),
        (np.array([None]), "holds object"),
    ],
)
def test_arrays_that_hold_no_ids_are_one_line(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message) as caught:
        id_file(str(tmp_path / "a.npy"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("wrong", "dtype"), [(500, "<u2"), (70_000, "<i4"), (-1, "<i8")])
def test_ids_outside_the_vocabulary_are_named(tmp_path: Path, wrong: int, dtype: str) -> None:
    ids = ids_of(300)
    ids[123] = wrong
    path = save(tmp_path / "a.npy", ids, dtype)
    expected = rf"a\.npy holds the id {wrong} at token 123, but tokenizer is 'ids:500'; .* to 499"
    with pytest.raises(ValueError, match=expected):
        prepare(data(path), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/tokens"))


def test_text_and_ids_are_not_taken_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    for name in (tmp_path / "a.txt", tmp_path, Path("sotu"), tmp_path / "*.txt"):
        with pytest.raises(ValueError, match=r"expected a \.bin or \.npy file of token ids"):
            locate(data(name))
    path = save(tmp_path / "a.bin", ids_of(300), "<u2")
    with pytest.raises(ValueError, match="or tokenizer = ids:VOCABULARY"):
        prepare(data(path, "bytes"), tmp_path / "cache")


def test_a_file_that_changes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.bin", ids_of(300), "<u2")
    store = prepare(data(path), tmp_path / "cache")
    save(path, ids_of(301), "<u2")
    with pytest.raises(ValueError, match="changed since it was prepared"):
        store.split("train")
    again = prepare(data(path), tmp_path / "cache")
    assert again.folder != store.folder
    monkeypatch.setattr(building, "stamp", lambda _: "another")
    with pytest.raises(ValueError, match="changed while it was read"):
        prepare(data(path, split_seed=7), tmp_path / "cache")


def test_a_store_that_points_nowhere_is_damaged(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bin", ids_of(300), "<u2")
    store = prepare(data(path), tmp_path / "cache")
    description = store.folder / "store.json"
    whole = description.read_text()
    for old, new in (('"stretches"', '"other"'), ('"<u2"', '"<f4"'), ('"files"', '"others"')):
        description.write_text(whole.replace(old, new))
        with pytest.raises(ValueError, match="does not describe a prepared corpus"):
            TokenStore.open(store.folder)


def test_three_pieces_are_needed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bin", np.ones(300), "<u2")
    with pytest.raises(ValueError, match="1 distinct documents; expected at least 3"):
        prepare(data(path), tmp_path / "cache")


def test_ids_spell_themselves(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bin", ids_of(300), "<u2")
    tokenizer = prepare(data(path), tmp_path / "cache").tokenizer
    assert tokenizer.vocabulary == 500
    assert tokenizer.decode([7, 0]) == b"<7><0>"
    assert not tokenizer.token_bytes.any()
    with pytest.raises(ValueError, match="token ids alone"):
        tokenizer.encode([b"text"])


@pytest.mark.parametrize(("given", "kept"), [("ids:050", "ids:50"), ("ids:50:07", "ids:50:7")])
def test_a_vocabulary_is_stated(given: str, kept: str) -> None:
    config = DataConfig(tokenizer=given)
    assert config.tokenizer == kept
    assert config.vocabulary == 50
    assert config.end == (7 if "7" in kept else None)
    assert config.loss_unit == "nats per token"
    assert not config.is_text
    assert DataConfig().end == 0


@pytest.mark.parametrize("given", ["ids", "ids:1", "ids:50:50", "ids:1000001", "ids:5:", "ids:-5"])
def test_a_vocabulary_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="expected 'bytes' or"):
        DataConfig(tokenizer=given)
