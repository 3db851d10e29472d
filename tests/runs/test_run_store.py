"""A study's run folders, and records as committed lines."""

import json
import shutil
from pathlib import Path

import pytest
from one_run import CONFIG, OTHER

from given import record_of
from isoflop.runs import (
    RunStore,
    committed_records,
    read_records,
    record_files,
    replace_records,
    write_records,
)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "study")
    for config in (CONFIG, OTHER):
        folder = store.folder(config.run_id)
        folder.create(config)
        with folder.claim():
            folder.write_record(record_of(config))
    return store


def test_records_are_those_of_all_runs_by_run_id(store: RunStore, tmp_path: Path) -> None:
    shutil.copytree(store.folder(CONFIG.run_id).path, store.root / "runs" / ".tmp-0123")
    (store.root / "runs" / "notes.txt").write_text("x")
    expected = sorted([record_of(CONFIG), record_of(OTHER)], key=lambda r: r.run_id)
    assert store.records() == expected
    assert [f.path for f in store.folders()] == [store.root / "runs" / r.run_id for r in expected]
    (store.root / "runs" / CONFIG.run_id / "record.json").unlink()
    assert store.records() == [record_of(OTHER)]
    assert RunStore(tmp_path / "none").records() == []


@pytest.mark.parametrize("content", ["{", "{}", json.dumps(record_of(OTHER).model_dump())])
def test_a_bad_record_is_told_and_the_others_stay_visible(store: RunStore, content: str) -> None:
    (store.root / "runs" / CONFIG.run_id / "record.json").write_text(content)
    with pytest.warns(UserWarning, match=f"record left out: .*{CONFIG.run_id}"):
        records = store.records()
    assert records == [record_of(OTHER)]


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/b", "..", ".", "", "a\0b", "x" * 300, "a\n", "-rf", ".tmp-1"]
)
def test_unsafe_names_are_refused(store: RunStore, name: str) -> None:
    with pytest.raises(ValueError, match="run id is") as caught:
        store.folder(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["records.jsonl", "records.jsonl.gz"])
def test_committed_records_come_back_sorted_and_to_the_same_bytes(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "results" / "study" / name
    records = sorted([record_of(CONFIG), record_of(OTHER)], key=lambda r: r.run_id)
    write_records(path, reversed(records))
    assert committed_records(tmp_path / "results", "study", "records") == records
    first = path.read_bytes()
    write_records(path, records)
    assert path.read_bytes() == first
    if path.suffix != ".gz":
        path.write_bytes(first.rstrip(b"\n"))
        assert read_records(path) == records
    # In place of any that are there.
    written = replace_records(tmp_path / "results", "study", "records", records[:1])
    assert record_files(tmp_path / "results", "study", "records") == [written]
    assert read_records(written) == records[:1]


@pytest.mark.parametrize("bad", ["{", "[]", '{"run_id": "x"}', "NaN"])
def test_a_corrupt_committed_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [record_of(CONFIG)])
    path.write_text(path.read_text() + bad + "\n")
    with pytest.raises(ValueError, match=r"records\.jsonl, line 2, is not") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


def test_a_run_is_committed_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(ValueError, match="more than one record"):
        write_records(path, [record_of(CONFIG), record_of(CONFIG)])
    write_records(path, [record_of(CONFIG)])
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="more than one record"):
        read_records(path)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"{}", lambda b: b[:20] + b"x" * 9])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, damage) -> None:
    path = tmp_path / "records.jsonl.gz"
    write_records(path, [record_of(CONFIG)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"records\.jsonl\.gz is not a whole gzip file"):
        read_records(path)
