"""Every file that isoflop loads, and what loads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isoflop import checkpoint, storage
from isoflop.config import DataConfig, Study
from isoflop.config.load import load, load_study
from isoflop.data import TokenStore, prepare
from isoflop.fit import run_table
from isoflop.report.registration import read_registrations
from isoflop.runs import RunFolder, read_records
from isoflop.sweep import Ledger
from isoflop.sweep.ledger import save_study
from isoflop.sweep.precision import read_choice
from isoflop.sweep.report import _speeds

STUDY = {"name": "s", "budgets_flops": [1e12], "variants": [{"name": "Baseline"}]}


@dataclass(frozen=True)
class Loaded:
    """A file and what loads it from a folder that holds it."""

    name: str
    load: Callable[[Path], object]

    def put(self, folder: Path, content: bytes) -> None:
        """Write the file into the folder."""
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def in_checkpoint(name: str) -> Loaded:
    """A file of a checkpoint whose manifest lists it as it is."""

    def read(folder: Path) -> object:
        def write(target: Path) -> None:
            (target / "state.safetensors").write_bytes(b"")
            (target / "values.json").write_text('{"step": 5, "values": {}}')
            (target / name).write_bytes((folder / name).read_bytes())

        storage.commit_folder(folder / "checkpoint" / "step-00000005", write)
        return checkpoint.latest(folder / "checkpoint")

    return Loaded(name, read)


def in_store(name: str) -> Loaded:
    """A file of a prepared corpus."""

    def read(folder: Path) -> object:
        (folder / "text.txt").write_text("\n\n".join(f"document {n} of few" for n in range(60)))
        data = DataConfig(corpus=str(folder / "text.txt"), tokenizer="bpe:258", sequence_length=8)
        made = prepare(data, folder / "cache")
        (made.folder / name).write_bytes((folder / name).read_bytes())
        opened = TokenStore.open(made.folder)
        return opened.split("train"), opened.tokenizer

    return Loaded(name, read)


def corpus(ending: str) -> Loaded:
    """A corpus in one file."""
    name, tokenizer = f"corpus.{ending}", "ids:500" if ending == "npy" else "bytes"
    return Loaded(
        name,
        lambda folder: prepare(
            DataConfig(corpus=str(folder / name), tokenizer=tokenizer), folder / "cache"
        ),
    )


def table(ending: str) -> Loaded:
    """A table of runs."""
    return Loaded(f"runs.{ending}", lambda folder: run_table(folder / f"runs.{ending}"))


def own_study(folder: Path) -> Study:
    """A study whose folder and results are `folder`."""
    (folder / "own.json").write_text(json.dumps(STUDY))
    return load_study(folder / "own.json")


JSON_FILES = [
    Loaded("run/config.json", lambda folder: RunFolder(folder / "run").config()),
    Loaded("run/pinned.json", lambda folder: RunFolder(folder / "run").pinned()),
    Loaded("run/record.json", lambda folder: RunFolder(folder / "run").record()),
    Loaded("run/evaluation.json", lambda folder: RunFolder(folder / "run").evaluation()),
    Loaded("run/sample.json", lambda folder: RunFolder(folder / "run").sample()),
    Loaded("manifest.json", lambda folder: storage.verify_folder(folder)),
    in_checkpoint("values.json"),
    in_store("store.json"),
    Loaded("records.jsonl", lambda folder: read_records(folder / "records.jsonl")),
    Loaded("results/s/records.jsonl", lambda f: Ledger(own_study(f), f, f / "results")),
    Loaded("results/s/search.jsonl", lambda f: Ledger(own_study(f), f, f / "results")),
    Loaded("bench.json", lambda folder: _speeds(folder / "bench.json")),
    Loaded("study.json", lambda folder: save_study(own_study(folder), folder)),
    Loaded("precision.json", lambda folder: read_choice(folder)),
    Loaded("predictions/one.json", lambda folder: read_registrations(folder / "predictions")),
    Loaded("config.json", lambda folder: load(folder / "config.json")),
]
"""Files that are strict JSON, or have a line of it."""

OTHER_FILES = [
    Loaded("config.toml", lambda folder: load(folder / "config.toml")),
    in_checkpoint("state.safetensors"),
    in_store("train.offsets"),
    in_store("train.bytes"),
    in_store("token_bytes"),
    in_store("tokenizer.json"),
    in_store("train.tokens"),
    *(table(ending) for ending in ("csv", "tsv", "jsonl", "parquet")),
    *(corpus(ending) for ending in ("txt", "jsonl", "parquet", "npy")),
]
