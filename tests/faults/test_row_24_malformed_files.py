"""Row 24: malformed, huge or binary files of every kind that a command reads.

Injected in place of studies, corpora, tables, records, tokenisers, stores and checkpoints.
Expected: one line that names the file, the key and what was expected; exit code 2.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hostile_commands import STUDY, TEXT, Sandbox, survives

from isoflop.config import DataConfig
from isoflop.data import prepare
from isoflop.data.store import TokenStore
from isoflop.fit.tables.files import LARGEST
from isoflop.runs import RunStore

HUGE = 20_000_000
"""Bytes of a file that no person wrote."""
KEYS = 30_000
ZEROS = gzip.compress(bytes(1_000_000), mtime=0) * (LARGEST // 1_000_000 + 1)
"""What unpacks to more than is read."""


def nested(opening: str, closing: str, depth: int, middle: str = "1") -> str:
    return opening * depth + middle + closing * depth


Files = list[tuple[str, str | bytes, str]]
"""Name and content of a file, and what is said of it."""


def put(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


STUDIES: Files = [
    ("s.toml", b"", "name is missing; expected text"),
    ("s.toml", bytes(range(256)), "is not UTF-8 text"),
    ("s.toml", "name = ", "is not valid TOML"),
    ("s.toml", b"#" * HUGE, "is larger than 1,000,000 bytes"),
    ("s.toml", "a = " + "[" * 400_000, "is nested too deeply"),
    ("s.toml", "a = " + nested("{a = ", "}", 2000), "is nested too deeply"),
    # The parser of TOML needs memory by the square of the parts of a key: 40 GB for this one.
    ("s.toml", ".".join("a" * 100_000) + " = 1", "is nested too deeply"),
    ("s.toml", "[" + ".".join("a" * 900) + "]", "is nested too deeply"),
    ("s.toml", "a" + '."a"' * 900 + " = 1 # '", "is nested too deeply"),
    ("s.toml", "b = {a = '''x'''', " + ".".join("a" * 900) + " = 'b'}", "is nested too deeply"),
    ("s.toml", f"# Don't{'.' * 900}\nname = 'a{'.' * 900}' # {'.' * 900}", "name is 'a..."),
    ("s.toml", "".join(f"k{i} = 1\n" for i in range(KEYS)), "unknown key k0; expected one of"),
    ("s.toml", "name = 'a'\nname = 'b'", "is not valid TOML"),
    ("s.toml", "name = 2020-01-01", "2020-01-01 is a date or time; expected text"),
    ("s.toml", f"seeds = [{'9' * 5000}]", "is not valid TOML"),
    ("s.json", "[]", "expected a JSON object"),
    ("s.json", nested('{"a":', "}", 600), "is nested too deeply"),
    ("s.json", nested("[", "]", 100_000), "is nested too deeply"),
    ("s.json", '{"name": NaN}', "NaN is not a JSON number"),
    ("s.json", '{"name": "a", "name": "b"}', "key 'name' is given twice"),
    ("s.json", json.dumps({**STUDY, "seeds": ["a"] * KEYS}), "seeds[0] is 'a'; expected a whole"),
    ("s.json", json.dumps({**STUDY, "variants": [{}] * KEYS}), "variants[0].name is missing"),
]


@pytest.mark.parametrize(("name", "content", "told"), STUDIES, ids=range(len(STUDIES)))
def test_row_24_a_study_that_is_none_is_one_line(
    box: Sandbox, name: str, content: str | bytes, told: str
) -> None:
    put(box.home, name, content)
    line = box.refused("run", name)
    assert line.startswith(f"{name}: ")
    assert told in line


EXTREME: list[tuple[str, Any, str]] = [
    ("budgets_flops", [1e300], "up to 1e+40"),
    ("seeds", [10**30], "not negative, up to"),
    ("data_orders", [2**63], "not negative, up to"),
    ("learning_rate_check", [1e300], "from 1e-6 to 1e6"),
    ("tokens_per_step", 10**18, "a whole number from 1 to"),
    ("evaluation_tokens", 10**18, "a whole number from 1 to"),
    ("data.sequence_length", 10**18, "from 2 to 1,000,000,000"),
    ("data.split_seed", 2**70, "a whole number from 0 to"),
    ("recipe.reference_width", 10**18, "from 1 to 1,000,000"),
    ("grid.sizes", 10**9, "from 1 to 100"),
    ("grid.added_at_most", 10**9, "from 0 to 100"),
    ("grid.factor", 1.0000001, "from 1.01 to 1,000"),
    ("grid.centre_parameters", 1e300, "(0, 1e+13]"),
    ("shape.minimum_blocks", 10**9, "from 1 to 1,000"),
    ("shape.width_step", 10**18, "from 2 to 10,000"),
    ("shape.hidden_per_width", 1e300, "(0, 1000]"),
    ("shape.queries_per_kv_head", 10**18, "from 1 to 10,000"),
]


@pytest.mark.parametrize(("key", "value", "told"), EXTREME, ids=[one[0] for one in EXTREME])
def test_an_extreme_number_is_refused_by_its_key(
    box: Sandbox, key: str, value: Any, told: str
) -> None:
    table, _, last = key.rpartition(".")
    study = json.loads(json.dumps(STUDY))
    (study.setdefault(table, {}) if table else study)[last] = value
    line = box.refused("plan", box.study(study))
    assert f"{key} is " in line
    assert told in line


CORPORA: Files = [
    ("c.txt", b"a\0b", "holds the byte 0 at offset 1"),
    ("c.txt", b"caf\xe9" * 10, "is not UTF-8 text"),
    ("c.jsonl", '{"text": "' + "a" * HUGE, "line 1 is not JSON"),
    ("c.jsonl", '{"text": "a"}\n{"txt": "a"}\n', 'line 2 has no key "text"'),
    ("c.jsonl", '{"text": 5}', "`text` is int; expected a string"),
    ("c.jsonl", '{"text": "a", "n": ' + "9" * 5000 + "}", "line 1 is not JSON"),
    ("c.jsonl", bytes(range(128, 256)), "line 1 is not JSON"),
    ("c.parquet", b"PAR1" + bytes(200) + b"PAR1", "cannot read"),
    ("c.parquet", b"", "is not a readable Parquet file"),
    ("c.txt.gz", b"\x1f\x8b\x08", "compressed; decompress it first"),
]


TABLES: Files = [
    ("t.csv", b"", "cannot be read as csv"),
    ("t.csv", bytes(range(256)) * 9, "cannot be read as csv"),
    # As many columns take the parser minutes and gigabytes.
    ("t.csv", "a," * (HUGE // 2), "its line 1 is longer than 100,000"),
    ("t.csv", "loss,parameters,tokens\n" + "3" * HUGE, "its line 2 is longer than 100,000"),
    ("t.csv", 'loss,parameters,tokens\n"3,1e6,1e7\n', "line 2: unexpected end of data"),
    ("t.csv", ZEROS, "it holds more than 100,000,000 bytes"),
    ("t.csv.gz", gzip.compress(b"loss,params", mtime=0)[:-9], "its compressed data are damaged"),
    ("t.json", json.dumps([{f"c{i}": 1} for i in range(KEYS)]), "30,000 columns"),
    ("t.tsv", "loss\tparameters\n1\t2\n", "expected loss and two of"),
    ("t.jsonl", '{"run_id":' + "[" * 100_000, "cannot be read as jsonl"),
    ("t.jsonl", '{"loss": 3, "parameters": ' + "9" * 400 + ', "tokens": 1}', "no usable run"),
    (
        "t.jsonl",
        '{"loss": 1e300, "parameters": 1e300, "tokens": 1e300}',
        "no number that a run has",
    ),
    ("t.parquet", b"PAR1PAR1", "cannot be read as parquet"),
    ("t.xlsx", b"PK", "it is no workbook"),
]


OTHERS = [*CORPORA, *TABLES]


@pytest.mark.parametrize(("name", "content", "told"), OTHERS, ids=range(len(OTHERS)))
def test_a_corpus_or_table_that_is_none_is_one_line(
    box: Sandbox, name: str, content: str | bytes, told: str
) -> None:
    put(box.home, name, content)
    if name.startswith("c"):
        file = box.study({**STUDY, "data": {"corpus": name}})
        with box.contained("cache"):
            line = box("run", file).line
    else:
        line = box.refused("fit", name)
    assert name in line
    assert told in line


def test_a_wide_header_is_refused_unread(box: Sandbox) -> None:
    names = [f"c{i}" for i in range(20_000)]
    (box.home / "t.csv").write_text(f"loss,parameters,tokens,{','.join(names)}\n3,1e5,1e7\n")
    assert "its line 1 is longer than 100,000" in box.refused("fit", "t.csv")


def test_a_table_of_other_types_is_read_or_refused(box: Sandbox) -> None:
    numbers = {"parameters": [1e5, 2e5], "tokens": [1e7, 1e7]}
    for column, told in (
        ({"loss": [[1.0], [2.0]]}, "loss is no number that a run has"),
        (
            {"loss": pd.to_datetime(["2020-01-01", "2021-01-01"])},
            "loss is no number that a run has",
        ),
        ({"loss": [True, False]}, "loss is no number that a run has"),
        ({"loss": [3.0, 2.9], "variant": [b"\xff", b"a"]}, None),
    ):
        pd.DataFrame({**numbers, **column}).to_parquet(box.home / "t.parquet")
        if told is None:
            assert box("fit", "t.parquet", "--resamples", "20").code == 0
        else:
            assert told in box.refused("fit", "t.parquet")


RECORDS: list[tuple[str, Any, str]] = [
    ("run_id", "0" * 12, "run_id is '000000000000'; expected"),
    ("config", {}, "config.model"),
    ("state", "done", "state"),
    ("train_flops", {}, "lacks 'causal'"),
    ("parameters", {"total": 0, "non_embedding": 0, "active": 0}, "parameters.total"),
    ("evaluations", [{"split": "test"}], "evaluations.0"),
    ("curve", [{"step": 0, "loss": 1.0}], "curve.0.step"),
    ("seconds", -1, "seconds"),
    ("seconds", 10**400, "seconds"),
]


@pytest.mark.parametrize(("key", "value", "told"), RECORDS, ids=range(len(RECORDS)))
@pytest.mark.parametrize("committed", [True, False])
def test_a_record_that_does_not_agree_with_itself_is_refused(
    recorded: Sandbox, committed: bool, key: str, value: Any, told: str
) -> None:
    path = next((recorded.home / "runs").rglob("record.json"))
    if committed:
        path = recorded.home / "results" / "small" / "records.jsonl"
    first, *others = path.read_text().split("\n") if committed else (path.read_text(),)
    path.write_text("\n".join([json.dumps({**json.loads(first), key: value}), *others]))
    line = recorded.refused("status", "small.json")
    assert path.name in line
    assert told in line


DAMAGES: list[tuple[str, tuple[str | int, ...], Any, str]] = [
    ("sample.json", ("tokens",), [], "tokens"),
    ("sample.json", ("tokens", 1, "processed"), [99], "expected distinct ones of"),
    ("sample.json", ("routed_blocks",), [], "expected distinct ones of"),
    ("evaluation.json", ("measures", "decisions"), [], "measures.decisions"),
    ("evaluation.json", ("measures", "decisions", 0, "blocks"), [], "which are measured"),
    ("evaluation.json", ("measures", "decisions", 0, "stretch", "tokens"), [3], "rows that are"),
    ("evaluation.json", ("token_texts",), {}, "lacks the text of id 3"),
    (
        "evaluation.json",
        ("measures", "decisions", 1, "blocks", 0, "router_weights", "edges"),
        [],
        "number of ranges",
    ),
    ("config.json", ("steps",), "many", "steps"),
    ("config.json", (), [], "config.json"),
]


@pytest.mark.parametrize(("name", "place", "value", "told"), DAMAGES, ids=range(len(DAMAGES)))
def test_measures_that_do_not_agree_are_refused(
    recorded: Sandbox, name: str, place: tuple[str | int, ...], value: Any, told: str
) -> None:
    path = next((recorded.home / "runs").rglob("sample.json")).with_name(name)
    whole = {"": json.loads(path.read_text())}
    holder: Any = whole
    for step in ("", *place[:-1]) if place else ():
        holder = holder[step]
    holder[place[-1] if place else ""] = value
    path.write_text(json.dumps(whole[""]))
    if name == "config.json":
        survives(recorded("sample", path.parent))  # the record holds the configuration once more
        return
    line = recorded("report", "small.json").line
    assert name in line
    assert told in line


def test_metrics_that_make_no_sense_hide_no_run(recorded: Sandbox) -> None:
    for loss in ("1e999", "1" + "0" * 400, "null", '"x"', "[1]", "true"):
        for path in (recorded.home / "runs").rglob("metrics.jsonl"):
            path.write_text(f'{{"step": 3, "loss": {loss}}}\n\xff\n{{"step": true}}\n')
        assert recorded("status", "small.json").code == 0


def test_a_folder_in_place_of_a_file_is_one_line(recorded: Sandbox) -> None:
    path = next((recorded.home / "runs").rglob("record.json"))
    path.unlink()
    path.mkdir()
    assert "record.json: Is a directory" in recorded.refused("status", "small.json")


@pytest.fixture(scope="module")
def bpe_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    (root / "text.txt").write_text(TEXT)
    data = DataConfig(corpus=str(root / "text.txt"), tokenizer="bpe:270", test_fraction=0.2)
    return prepare(data, root / "cache").folder


def read_all(folder: Path) -> None:
    store = TokenStore.open(folder)
    for name in ("train", "validation", "test"):
        store.split(name)
    store.tokenizer.encode([b"peace"])


STORES: list[tuple[str, str | bytes | None, str]] = [
    ("store.json", None, "cannot be read"),
    ("store.json", "{", "is not valid JSON"),
    ("store.json", "[]", "does not describe a prepared corpus"),
    ("store.json", '{"dtype": "O"}', "does not describe a prepared corpus"),
    ("train.tokens", b"", "it has 0 bytes, expected"),
    ("train.tokens", None, "it has 0 bytes, expected"),
    ("train.offsets", b"", "it has 0 bytes, expected"),
    ("test.bytes", None, "it has 0 bytes, expected"),
    ("token_bytes", bytes(270 * 8 - 1) + b"\xff", "it holds a negative number"),
    ("tokenizer.json", "", "byte-level BPE"),
    ("tokenizer.json", "{}", "byte-level BPE"),
    ("tokenizer.json", nested("[", "]", 10_000), "byte-level BPE"),
    ("tokenizer.json", b"\xff", "byte-level BPE"),
]


@pytest.mark.parametrize(("name", "content", "told"), STORES, ids=range(len(STORES)))
def test_a_damaged_store_says_how_to_make_it_anew(
    bpe_store: Path, tmp_path: Path, name: str, content: str | bytes | None, told: str
) -> None:
    folder = tmp_path / "tokens"
    shutil.copytree(bpe_store, folder)
    read_all(folder)
    if content is None:
        (folder / name).unlink()
    else:
        put(folder, name, content)
    with pytest.raises(ValueError, match="run the same command again") as caught:
        read_all(folder)
    assert str(folder / name) in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_and_vocabularies_that_do_not_fit_are_refused(
    bpe_store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tokens"
    shutil.copytree(bpe_store, folder)
    offsets = np.fromfile(folder / "train.offsets", "<i8")
    for wrong in (offsets[:-1], offsets[::-1], offsets * 2, offsets.astype("f8"), offsets - 1):
        wrong.tofile(folder / "train.offsets")
        with pytest.raises(ValueError, match=r"train\.offsets is damaged"):
            read_all(folder)
    offsets.tofile(folder / "train.offsets")
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    for changes in ({"peac": 10**6}, {"<|end|>": 5}, {"\u4e00": len(vocabulary)}):
        content["model"]["vocab"] = {**vocabulary, **changes}
        (folder / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
            read_all(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x04]\x94."])
def test_a_checkpoint_that_is_none_is_one_line(recorded: Sandbox, content: bytes) -> None:
    store = RunStore(recorded.home / "runs" / "small")
    folder = next(one for one in store.folders() if (one.path / "sample.json").exists())
    for name in ("state.safetensors", "values.json", "manifest.json"):
        path = folder.path / "checkpoint" / "step-00000003" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    line = recorded.refused("sample", folder.path.relative_to(recorded.home))
    assert "no checkpoint" in line
    assert "manifest.json" in line
