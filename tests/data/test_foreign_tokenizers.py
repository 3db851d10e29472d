"""Tokenisers that others made: what is known of their files, their tokens, and stores of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import foreign
from given import small_model, write_words
from isoflop.config import DataConfig, RunConfig, TokenizerFile
from isoflop.data import pieces, prepare
from isoflop.data.text import _batches
from isoflop.data.tokenizer import END, LibraryTokenizer

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    for name in ("bytes", "fallback"):
        (root / name).mkdir()
    return {
        "bytes": foreign.byte_level(root / "bytes" / "tokenizer.json"),
        "fallback": foreign.with_fallback(root / "fallback" / "tokenizer.json"),
    }


def opened(path: Path) -> LibraryTokenizer:
    named = TokenizerFile.model_validate(str(path))
    return LibraryTokenizer(named.content(), named.end)


def run(tokenizer: object, **data: object) -> RunConfig:
    named = DataConfig(tokenizer=tokenizer, **data)
    return RunConfig(
        model=small_model(vocabulary=named.vocabulary), data=named, steps=1, sequences_per_step=1
    )


def test_what_is_known_of_a_file(files: dict[str, Path], tmp_path: Path) -> None:
    data = DataConfig(tokenizer=str(files["bytes"]))
    assert (data.vocabulary, data.end, data.is_text, data.spells) == (300, 299, True, True)
    assert data.loss_unit == "nats per token"
    assert DataConfig(tokenizer=str(files["fallback"])).end == 2
    # Read back without the file.
    gone = data.model_dump_json().replace(str(files["bytes"]), "gone.json")
    assert DataConfig.model_validate_json(gone, strict=True).vocabulary == 300
    # What ends a document is what stands beside the file, if something does.
    other = foreign.byte_level(tmp_path / "tokenizer.json", special=("<|endoftext|>", "<|im_end|>"))
    assert DataConfig(tokenizer=str(other)).end == 298
    for eos in ("<|im_end|>", {"content": "<|im_end|>"}, ["<|im_end|>"]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
        if isinstance(eos, list):
            with pytest.raises(ValueError, match="no token is known that ends a document"):
                DataConfig(tokenizer=str(other))
        else:
            assert DataConfig(tokenizer=str(other)).end == 299


def test_a_run_is_called_by_the_content_of_the_file(files: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copied.json"
    copy.write_bytes(files["bytes"].read_bytes())
    first = run(str(files["bytes"])).run_id
    assert run(str(copy)).run_id == first
    copy.write_text(files["bytes"].read_text().replace("\n", "\n "))
    assert run(str(copy)).run_id != first
    # What only tells of the text of ids is no part of it.
    ids = {"corpus": "a.bin", "tokenizer": "ids:400:299"}
    assert run(**ids, ids_tokenizer=str(copy)).run_id == run(**ids).run_id


@pytest.mark.parametrize(
    ("tokenizer", "told"),
    [
        ("gone/tokenizer.json", "expected the path of a tokenizer.json, or hf:NAME; there is no"),
        ("a.model", "a vocabulary of SentencePiece or tiktoken; expected a tokenizer.json: Auto"),
        ("cl100k.tiktoken", "a vocabulary of SentencePiece or tiktoken"),
        ("broken.json", "is not valid JSON"),
        ("other.json", "is not the JSON of a tokenizer"),
        ("list.json", "is not the JSON of a tokenizer"),
        ("endless.json", "no token is known that ends a document; expected a tokenizer_config"),
        ("gpt2", "expected 'bytes' or"),
    ],
)
def test_what_is_no_tokenizer_is_a_line(
    tokenizer: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    Path("other.json").write_text('{"model": 3}')
    Path("list.json").write_text("[]")
    foreign.byte_level(tmp_path / "endless.json", special=("<mark>",))
    with pytest.raises(ValueError, match=told) as caught:
        DataConfig(tokenizer=tokenizer)
    assert len(caught.value.errors()) == 1
    assert "\n" not in caught.value.errors()[0]["msg"]


def test_the_hub_out_of_reach_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'hf:nobody/nothing', of which tokenizer"):
        DataConfig(tokenizer="hf:nobody/nothing")


def test_the_hub_s_cache_is_read_first(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(name: str, file: str, *, local_files_only: bool) -> str:
        asked.append((name, file, local_files_only))
        if file == "tokenizer_config.json":
            raise EntryNotFoundError("no such file")
        return str(files["bytes"])

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    data = DataConfig(tokenizer="hf:some/one")
    assert data.tokenizer_name.startswith("hf:some/one (")
    assert data.end == 299
    assert asked == [
        ("some/one", "tokenizer.json", True),
        ("some/one", "tokenizer_config.json", True),
    ]
    assert data.model_dump(mode="json")["tokenizer"]["source"] == "hf:some/one"
    assert run("hf:some/one").run_id == run(str(files["bytes"])).run_id


clean_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=60)
@given(clean_text)
def test_ids_hold_the_text(files: dict[str, Path], text: str) -> None:
    from unicodedata import normalize

    for path, prefix, kept in (
        (files["bytes"], "", normalize("NFC", text)),
        (files["fallback"], " " if text else "", text),
    ):
        tokenizer = opened(path)
        (ids,) = tokenizer.encode([text.encode()])
        # SentencePiece's own mark is a space to it.
        assert tokenizer.decode(ids).decode() == (prefix + kept).replace("\u2581", " ")
        assert tokenizer.token_bytes[ids].sum() == len(tokenizer.decode(ids))
        assert tokenizer.end not in ids
        assert tokenizer.token_bytes[tokenizer.end] == 0


def test_the_mark_of_an_end_in_a_text_is_text(files: dict[str, Path]) -> None:
    for path, mark in ((files["bytes"], "<|endoftext|>"), (files["fallback"], "</s>")):
        tokenizer = opened(path)
        (ids,) = tokenizer.encode([f"a{mark}b".encode()])
        assert tokenizer.end not in ids
        assert tokenizer.decode([*ids, tokenizer.end]).decode().lstrip() == f"a{mark}b"
        assert tokenizer.end_text == mark


@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_long_texts_are_cut_where_it_shows_in_no_token(
    kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b" the union!\nis 2026  strong.\n\n and\t(our) law " * 50
    tokenizer = opened(files[kind])
    monkeypatch.setattr(pieces, "SEGMENT", 64)
    parts = [part.text for batch in _batches([(0, text)], tokenizer.cuts) for part in batch]
    made = tokenizer.encode(parts)
    np.testing.assert_array_equal(np.concatenate(made), tokenizer.encode([text])[0])
    assert (len(made) > 9) == (kind == "bytes")


def test_a_tokenizer_that_changes_the_text_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    lower = json.loads(foreign.byte_level(tmp_path / "lower.json").read_text())
    lower["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "lower.json").write_text(json.dumps(lower))
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "the": 2}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.add_special_tokens(["</s>"])
    words.save(str(tmp_path / "words.json"))
    corpus = write_words(tmp_path / "corpus", 30)
    for name in ("lower.json", "words.json"):
        data = DataConfig(corpus=str(corpus), tokenizer=str(tmp_path / name), sequence_length=8)
        with pytest.raises(ValueError, match=f"{name}', which does not give a text back byte for"):
            prepare(data, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_a_store_of_such_tokens(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    corpus = write_words(tmp_path / "corpus", 60)
    data = DataConfig(
        corpus=str(corpus), tokenizer=str(files[kind]), sequence_length=8, test_fraction=0.2
    )
    store = prepare(data, tmp_path / "cache")
    assert store.vocabulary == data.vocabulary
    tokenizer = store.tokenizer
    for name in SPLITS:
        split = store.split(name)
        ids = np.asarray(split.tokens)
        ends = split.offsets[1:] - 1
        assert (ids[ends] == data.end).all()
        assert (ids == data.end).sum() == split.documents
        # Bytes are those of the text, whatever a tokeniser puts in front of it.
        assert split.token_bytes[ids].sum() == pytest.approx(split.bytes)
        text = tokenizer.decode(ids[: ends[0]]).decode().lstrip()
        assert any(text == path.read_text() for path in corpus.iterdir())
    # The store is found again without the file, and another file gives another store.
    gone = data.model_dump(mode="json")
    gone["tokenizer"]["source"] = "gone.json"
    assert prepare(DataConfig.model_validate(gone), tmp_path / "cache").folder == store.folder
    with pytest.raises(ValueError, match=r"tokenizer is 'gone\.json'; expected the path of"):
        prepare(DataConfig.model_validate({**gone, "split_seed": 3}), tmp_path / "cache")


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    corpus = write_words(tmp_path / "corpus", 30)
    path = foreign.byte_level(tmp_path / "tokenizer.json")
    settings = {"corpus": str(corpus), "tokenizer": str(path), "sequence_length": 8}
    data = DataConfig(**settings)
    foreign.byte_level(path, 280)
    with pytest.raises(ValueError, match=r"tokenizer\.json changed: its SHA-256 was .*; restore"):
        prepare(data, tmp_path / "cache")
    changed = DataConfig(**settings)
    assert changed.vocabulary == 280
    store = prepare(changed, tmp_path / "cache")
    assert store.manifest["end"] == 279
    foreign.byte_level(path, 290)
    assert prepare(DataConfig(**settings), tmp_path / "cache").folder != store.folder


def test_ids_whose_tokenizer_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = opened(files["bytes"])
    texts = [path.read_bytes() for path in write_words(tmp_path / "corpus", 30).iterdir()]
    ids = np.concatenate([[*one, tokenizer.end] for one in tokenizer.encode(texts)])
    np.save(tmp_path / "ids.npy", ids.astype("<u2"))
    settings = {"corpus": str(tmp_path / "ids.npy"), "sequence_length": 8}
    bare = DataConfig(**settings, tokenizer="ids:304:299")
    data = DataConfig(**settings, tokenizer="ids:304:299", ids_tokenizer=str(files["bytes"]))
    assert (bare.spells, data.spells, data.is_text) == (False, True, False)
    store = prepare(data, tmp_path / "cache")
    assert store.sha256 == prepare(bare, tmp_path / "cache").sha256
    found = [store.split(name) for name in SPLITS]
    spelled = sum(one.token_bytes[one.stream[np.arange(len(one.tokens))]].sum() for one in found)
    assert spelled == sum(map(len, texts))
    assert len(found[0].token_bytes) == 304
    assert store.tokenizer.decode([*tokenizer.encode([b"the law"])[0], 299, 303]) == b"the law"
    # An end that the tokenizer does not spell.
    beyond = DataConfig(**settings, tokenizer="ids:304:303", ids_tokenizer=str(files["bytes"]))
    assert prepare(beyond, tmp_path / "cache").tokenizer.end_text == END
    for wrong in ({"tokenizer": "ids:299"}, {"tokenizer": "bytes"}):
        with pytest.raises(ValueError, match="ids_tokenizer has 300 ids, and tokenizer is"):
            DataConfig(**wrong, ids_tokenizer=str(files["bytes"]))


def test_losses_per_byte_are_comparable(files: dict[str, Path], tmp_path: Path) -> None:
    """A model that knows nothing needs the bits of its ids, whatever they stand for."""
    import torch

    from isoflop.evaluation import evaluate
    from isoflop.model import build

    corpus = write_words(tmp_path / "corpus", 60)
    for tokenizer in ("bytes", *map(str, files.values())):
        data = DataConfig(corpus=str(corpus), tokenizer=tokenizer, sequence_length=16)
        split = prepare(data, tmp_path / "cache").split("test")
        model = build(small_model(vocabulary=data.vocabulary), seed=0)
        with torch.no_grad():
            model.head.weight.zero_()
        found = evaluate(model, split, 16, split="test", decision="every_token")
        bits = math.log2(data.vocabulary) * (len(split.tokens) - 1)
        read = split.bytes - split.token_bytes[split.tokens[0]]
        assert found.bits_per_byte == pytest.approx(bits / read)
