"""Whatever a table is written in, its rows are the same; and what is none is refused in a line."""

import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import zstandard

from isoflop.fit import run_table
from isoflop.fit.tables.files import LARGEST, content, is_json_table

GOOD = pd.DataFrame(
    {"loss": [3.0, 2.9, 2.95], "parameters": [1e6, 2e6, 4e6], "tokens": [4e7, 2e7, 1e7]}
)
CSV = GOOD.to_csv(index=False)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    write(held := io.BytesIO())
    return held.getvalue()


def workbook() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("Runs")
    for line in (["loss is in nats", "per token"], ["Notes"]):
        book.active.append(line)
    for line in (["Results of March"], [], list(GOOD), *GOOD.to_numpy().tolist()):
        sheet.append(line)
    return written(book.save)


RECORDS = GOOD.to_dict("records")
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
FILES: dict[str, tuple[str, str | bytes]] = {
    "tab with a name of two words": (
        "runs.csv",
        CSV.replace(",", "\t").replace("parameters", "Model size"),
    ),
    "spaces with row numbers": ("runs.txt", GOOD.to_string()),
    "markdown": (
        "runs.md",
        "| loss | parameters | tokens |\n|---|--:|:-:|\n"
        + "".join(f"| {a} | {b} | {c} |\n" for a, b, c in GOOD.to_numpy()),
    ),
    "quoted": ("runs.csv", GOOD.astype(str).to_csv(index=False, quoting=1)),
    "old Mac": ("runs.csv", CSV.replace("\n", "\r")),
    "UTF-32": ("runs.csv", CSV.encode("utf-32")),
    "Western": ("runs.csv", GOOD.assign(größe="groß").to_csv(index=False).encode("cp1252")),
    "comments": ("runs.csv", f"# our runs, of March\n#\n{CSV}# the last was slow, and late\n"),
    "commented header": ("runs.dat", "# " + CSV.replace(",", " ")),
    "title with separators": ("runs.csv", f"Results, second try,\n{CSV}"),
    "trailing separators everywhere": ("runs.csv", CSV.replace("\n", ",,\n")),
    "blank lines": ("runs.csv", CSV.replace("\n", "\n\n")),
    "row names": ("runs.csv", GOOD.to_csv()),
    "row names without a name": ("runs.csv", GOOD.to_csv()[1:]),
    "JSON lines in txt": ("runs.txt", LINES),
    "JSON list": ("runs.json", json.dumps(RECORDS)),
    "JSON wrapped beside others": (
        "runs.json",
        json.dumps({"date": "today", "tags": ["a"], "study": {"runs": RECORDS, "n": 3}}),
    ),
    "JSON columns": ("runs.json", json.dumps(GOOD.to_dict("list"))),
    "JSON columns by row": ("runs.json", GOOD.to_json()),
    "JSON nested": ("runs.json", json.dumps([{"config": {"data": one}} for one in RECORDS])),
    "Parquet": ("runs.parquet", written(GOOD.to_parquet)),
    "Parquet with an index": ("runs.parquet", written(GOOD.set_index("loss").to_parquet)),
    "Feather": ("runs.feather", written(GOOD.to_feather)),
    "Excel with a title": ("runs.xlsx", workbook()),
    "gz by content alone": ("runs", gzip.compress(CSV.encode(), mtime=0)),
}
"""What `test_table_properties` does not draw."""


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_runs(tmp_path: Path, name: str) -> None:
    file, held = FILES[name]
    path = tmp_path / file
    path.write_bytes(held if isinstance(held, bytes) else held.encode())
    table = run_table(path).table
    assert table[list(GOOD)].to_numpy().tolist() == GOOD.to_numpy().tolist()


def test_columns_of_json_may_have_names_of_their_own(tmp_path: Path) -> None:
    names = {"loss": "x", "parameters": "y", "tokens": "z"}
    (tmp_path / "runs.json").write_text(json.dumps(GOOD.rename(columns=names).to_dict("list")))
    assert len(run_table(tmp_path / "runs.json", columns=names).table) == 3


def test_nested_structures_of_parquet_have_names_with_dots(tmp_path: Path) -> None:
    rows = pd.DataFrame({"config": [{"size": 1e6}] * 2, "loss": [3.0, 2.9], "tokens": [1e7, 2e7]})
    rows.to_parquet(tmp_path / "runs.parquet")
    table = run_table(tmp_path / "runs.parquet", columns={"parameters": "config.size"}).table
    assert table["parameters"].tolist() == [1e6, 1e6]


def test_a_row_with_a_value_beyond_the_header_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    lines = CSV.splitlines()
    lines[2] = "2,9,2000000.0,20000000.0"
    path.write_text("\n".join(lines))
    runs = run_table(path)
    assert runs.table["loss"].tolist() == [3.0, 2.95]
    (left,) = runs.left_out
    assert left.words == "1 row: it has more fields than the header (first: row 2, '20000000.0')"


@pytest.mark.parametrize(
    ("name", "held", "message"),
    [
        ("runs.csv", b"\xff\xfe\x00loss", "cannot be read as csv"),
        ("runs.csv", b"loss\n3\n", "no table of two or more columns"),
        ("runs.csv", b"loss,N,D\n3,1e6,1e7,3\n", "rows have 4 fields and its header has 3"),
        ("runs.jsonl", b'{"loss": 1}\n{"loss":', "line 2 is not JSON"),
        ("runs.jsonl", b"[1]\n[2]", "line 1 is not a JSON object"),
        ("runs.json", b'{"a": [{"x": 1}], "b": [{"x": 1}]}', r"tables \['a', 'b'\]; expected one"),
        ("runs.json", b'{"a": 1}', "holds no list of runs"),
        ("runs.feather", b"ARROW1", "cannot be read as feather"),
        ("none.csv", None, "does not exist"),
    ],
)
def test_an_unreadable_file_is_one_line(
    tmp_path: Path, name: str, held: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if held is not None:
        path.write_bytes(held)
    with pytest.raises(ValueError, match=message) as error:
        run_table(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "extra", "held"),
    [
        ("openpyxl", "excel", workbook()),
        ("zstandard", "zstd", zstandard.compress(b"loss")),
        ("pyarrow", "parquet", b"PAR1"),
    ],
    ids=["xlsx", "zst", "parquet"],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str, held: bytes
) -> None:
    (tmp_path / "runs").write_bytes(held)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"pip install 'isoflop\[{extra}\]'"):
        run_table(tmp_path / "runs")


def test_what_unpacks_to_more_than_memory_is_refused_on_the_way(tmp_path: Path) -> None:
    zeros, parts = bytes(1_000_000), LARGEST // 1_000_000 + 1
    packed = {"a.gz": gzip.compress(zeros) * parts, "a.xz": lzma.compress(zeros) * parts}
    for name, held in packed.items():
        (tmp_path / name).write_bytes(held)
        with pytest.raises(ValueError, match="more than 100,000,000 bytes"):
            content(tmp_path / name)


STUDY = {"name": "a", "variants": [{"name": "b"}], "budgets_flops": [1e12]}


@pytest.mark.parametrize("value", [RECORDS, {"runs": RECORDS}, GOOD.to_dict("list"), STUDY, None])
def test_a_json_file_is_a_table_or_a_study(tmp_path: Path, value: object) -> None:
    (tmp_path / "it.json").write_text(json.dumps(value))
    assert is_json_table(tmp_path / "it.json") is (value not in (STUDY, None))
