"""The run folders of a study, and committed records."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from isoflop import storage
from isoflop.config import RunRecord
from isoflop.runs.folder import RunFolder, parse_record
from isoflop.runs.texts import know_texts, write_texts

ENDINGS = (".jsonl", ".jsonl.gz")
"""Of files of committed records; the last is what is written."""
RUN_ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a run may be called, as a regular expression."""


class RunStore:
    """A study's folder: run folders live in `root/runs/RUN_ID/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run, which need not exist; a ValueError for an unsafe name."""
        if not re.fullmatch(RUN_ID, run_id):
            raise ValueError(
                f"run id is {run_id[:80]!r}; expected 1 to 64 letters, digits, '.', '_' or '-', "
                "starting with a letter or digit"
            )
        return RunFolder(storage.inside(self.root, "runs", run_id))

    def folders(self) -> list[RunFolder]:
        """Return the run folders that exist, by run id; a ValueError names one that is none."""
        runs = storage.inside(self.root, "runs")
        if not runs.is_dir():
            return []
        found = [p for p in storage.entries(runs) if (p / "config.json").exists()]
        for path in found:
            if not re.fullmatch(RUN_ID, path.name):
                raise ValueError(f"{path} is called as no run is; move it out of {runs}")
        return [self.folder(path.name) for path in found]

    def records(self) -> list[RunRecord]:
        """Return the outcomes recorded so far, by run id.

        A record that cannot be read is left out with a warning, so that the others stay visible.
        """
        records = []
        for folder in self.folders():
            try:
                record = folder.record()
                if record is not None and record.run_id != folder.path.name:
                    raise ValueError(f"{folder.path} holds the record of run {record.run_id}")
            except ValueError as error:
                warnings.warn(f"record left out: {error}", stacklevel=2)
                continue
            if record is not None:
                records.append(record)
        return records


def record_files(results: Path, study: str, stem: str) -> list[Path]:
    """Return the files of a study's committed records that there are, plain and compressed.

    Their stem is `records`, or `search` for those of recipe trials; a ValueError tells of a
    symbolic link.
    """
    found = (storage.inside(results, study, f"{stem}{ending}") for ending in ENDINGS)
    return [path for path in found if path.exists()]


def committed_records(results: Path, study: str, stem: str) -> list[RunRecord]:
    """Return a study's committed records; arguments and errors as of the two functions it joins."""
    return [one for path in record_files(results, study, stem) for one in read_records(path)]


def replace_records(results: Path, study: str, stem: str, records: Iterable[RunRecord]) -> Path:
    """Write a study's committed records compressed, in place of any that are there."""
    path = storage.inside(results, study, f"{stem}{ENDINGS[-1]}")
    records = list(records)
    write_records(path, records)
    write_texts(path.parent, [record.config for record in records])
    for other in record_files(results, study, stem):
        if other != path:
            storage.discard(other)
    return path


def read_records(path: Path) -> list[RunRecord]:
    """Return the committed records in the JSONL file `path`, plain or compressed.

    Raises:
        ValueError: a line is no record, a run is there twice, or the file is cut or no gzip; the
            message names which.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    records = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            source = f"{path}, line {number},"
            records.append(parse_record(storage.parse_json(line, source), source))
    _refuse_duplicates(records, path)
    know_texts(path.parent, [record.config for record in records])
    return records


def write_records(path: Path, records: Iterable[RunRecord]) -> None:
    """Write `records` to `path`, whole or not at all: one strict JSON line each, by run id.

    Compressed where the name ends in `.gz`, to the same bytes for the same records.
    """
    ordered = sorted(records, key=lambda record: record.run_id)
    _refuse_duplicates(ordered, path)
    lines = (storage.to_json(record.model_dump(mode="json")) + "\n" for record in ordered)
    data = "".join(lines).encode()
    storage.write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _refuse_duplicates(records: list[RunRecord], path: Path) -> None:
    counts = Counter(record.run_id for record in records)
    twice = [run_id for run_id, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{path}: run {twice[0]} has more than one record; expected one each")
