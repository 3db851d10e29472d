"""Whatever is in a file, a command works or says in one line what is wrong with it.

Never a traceback, never a write outside. Each property is tried on a few fixed examples here, and
on many random ones in the slow test.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from damage import JUNK, damage_file, damaged_bytes, damaged_value, to_json
from hostile_commands import STUDY, TEXT, Sandbox, changed, listing, survives
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_study import RECORDED, fill

from isoflop.config import DataConfig
from isoflop.data import prepare
from isoflop.data.store import TokenStore

FAST = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(FAST, derandomize=False, print_blob=True)


class Ground:
    """Folders made once, of which every example damages a copy."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plain = Sandbox(root / "plain")
        self.recorded = Sandbox(root / "recorded")
        fill(self.recorded)
        asked = ("predict", "small.json", "--budget", "1e12", "--resamples", "20")
        written = "results/small/predictions/p.json"
        assert self.recorded(*asked, "--register", written).code == 0
        (root / "text.txt").write_text(TEXT)
        data = DataConfig(corpus=str(root / "text.txt"), tokenizer="bpe:270", test_fraction=0.2)
        self.store = prepare(data, root / "cache").folder

    def copy(self, box: Sandbox) -> Sandbox:
        return box.copied(self.root / "copy")


def try_commands(box: Sandbox, *commands: tuple[str, ...]) -> None:
    """Run commands that may write to the study's folders and the cache only."""
    for arguments in commands:
        before = listing(box.root)
        survives(box(*arguments))
        touched = changed(before, listing(box.root))
        own = ("home/runs", "home/results", "home/cache", "home/out")
        assert all(one.startswith(own) for one in touched), touched


def study_file(ground: Ground, draw: random.Random) -> None:
    box = ground.copy(ground.plain)
    value: Any = draw.choice((STUDY, RECORDED, SCALED))
    for _ in range(draw.randrange(1, 4)):
        value = damaged_value(value, draw)
    text, name = to_json(value), "s.json"
    if draw.random() < 0.3:
        text, name = toml(value), "s.toml"
    content = text.encode("utf-8", "surrogatepass")
    if draw.random() < 0.3:
        content = damaged_bytes(content, draw)
    (box.home / name).write_bytes(content)
    try_commands(box, ("costs", name), ("plan", name), ("status", name))


def table(ground: Ground, draw: random.Random) -> None:
    box = ground.copy(ground.plain)
    rows = [
        {
            "loss": 3 + 0.1 * draw.random(),
            "parameters": 10 ** draw.uniform(4, 6),
            "tokens": 1e7,
            "variant": draw.choice("ab"),
            "seed": draw.randrange(3),
            "state": "finished",
        }
        for _ in range(draw.randrange(1, 12))
    ]
    for _ in range(draw.randrange(4)):
        rows[draw.randrange(len(rows))][draw.choice((*rows[0], "other"))] = draw.choice(JUNK)
    ending = draw.choice(
        ("csv", "tsv", "txt", "csv.gz", "jsonl", "json", "parquet", "feather", "xlsx")
    )
    path = box.home / f"t.{ending}"
    match ending:
        case "jsonl":
            path.write_text("".join(to_json(row) + "\n" for row in rows))
        case "json":
            path.write_text(f'{{"runs": [{",".join(map(to_json, rows))}]}}')
        case "parquet" | "feather" | "xlsx":
            frame = pd.DataFrame(rows)
            for column in [name for name, kind in frame.dtypes.items() if kind.kind == "O"]:
                frame[column] = frame[column].map(lambda one: ascii(one)[:1000])
            if ending == "xlsx":
                frame.to_excel(path, index=False)
            else:
                getattr(frame, f"to_{ending}")(path)
        case _:
            frame = pd.DataFrame(rows).map(lambda one: one if isinstance(one, float) else str(one))
            separator = {"tsv": "\t", "txt": ";"}.get(ending, ",")
            frame.to_csv(path, index=False, sep=separator)
    if draw.random() < 0.4:
        path.write_bytes(damaged_bytes(path.read_bytes(), draw))
    try_commands(box, ("fit", path.name, "--resamples", "20"))


def run_files(ground: Ground, draw: random.Random) -> None:
    box = ground.copy(ground.recorded)
    names = ("record.json", "metrics.jsonl", "records.jsonl", "pinned.json", "config.json")
    paths = sorted(path for path in box.home.rglob("*") if path.name in names)
    damage_file(draw.choice(paths), draw)
    try_commands(box, ("status", "small.json"), ("export", "small.json", "--to", "out"))


def store_files(ground: Ground, draw: random.Random) -> None:
    folder = ground.root / "tokens"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ground.store, folder)
    damage_file(draw.choice(sorted(folder.iterdir())), draw)
    before = listing(ground.root)
    fault = ""
    try:
        store = TokenStore.open(folder)
        for name in ("train", "validation", "test"):
            split = store.split(name)
            assert split.offsets[-1] == len(split.tokens)
            assert np.isfinite(split.bytes)
        (ids,) = store.tokenizer.encode([b"peace and war"])
        store.tokenizer.decode(ids)
    except ValueError as error:
        fault = str(error)
    assert not fault or (str(folder) in fault and "\n" not in fault)
    assert listing(ground.root) == before


def corpus(ground: Ground, draw: random.Random) -> None:
    box = ground.copy(ground.plain)
    ending = draw.choice(("txt", "jsonl", "parquet", "py"))
    path = box.home / f"c.{ending}"
    documents = [" ".join(draw.choices(TEXT.split(), k=40)) for _ in range(draw.randrange(12))]
    match ending:
        case "jsonl":
            lines = [
                {"text": draw.choice((one, *JUNK)) if i == 3 else one}
                for i, one in enumerate(documents)
            ]
            path.write_text("".join(to_json(line) + "\n" for line in lines))
        case "parquet":
            pd.DataFrame({"text": documents}, dtype=object).to_parquet(path)
        case _:
            path.write_text("\n\n".join(documents))
    if draw.random() < 0.7:
        path.write_bytes(damaged_bytes(path.read_bytes(), draw))
    data = {"corpus": path.name, "sequence_length": 64}
    if draw.random() < 0.3:
        data["tokenizer"] = "bpe:300"
    try_commands(box, ("plan", box.study({**STUDY, "data": data})))


def whole_folder(ground: Ground, draw: random.Random) -> None:
    box = ground.copy(ground.recorded)
    paths = sorted(
        path
        for folder in ("runs", "results")
        for path in (box.home / folder).rglob("*")
        if path.is_file() and not path.name.startswith("claim-")
    )
    damage_file(draw.choice(paths), draw)
    command = draw.choice(COMMANDS)
    try_commands(box, command)


COMMANDS = (
    ("predict", "small.json", "--budget", "1e12", "--resamples", "20"),
    ("status", "small.json"),
    ("report", "small.json"),
    ("export", "small.json", "--to", "out"),
    ("clean", "small.json"),
)
SCALED = {
    **{key: value for key, value in STUDY.items() if key not in ("budgets_flops", "grid")},
    "data": {"corpus": "text.txt", "sequence_length": 64, "windows": "documents"},
    "positions": {"ranges": 4, "trailing": 16},
    "scaling": {"models": [{"blocks": 2, "width": 32}, {"blocks": 3, "width": 48}]},
}
PROPERTIES: dict[str, tuple[Callable[[Ground, random.Random], None], int]] = {
    "a study": (study_file, 10),
    "a table": (table, 6),
    "files of runs": (run_files, 6),
    "a prepared corpus": (store_files, 16),
    "a corpus": (corpus, 6),
    "a study's folder": (whole_folder, 4),
}
"""What is damaged: how, and how many examples are tried by default."""


def toml(value: Any) -> str:
    """Return JSON data as TOML, as far as that can hold it."""

    def inline(one: Any) -> str:
        if isinstance(one, dict):
            pairs = (f"{json.dumps(k)} = {inline(v)}" for k, v in one.items() if v is not None)
            return "{" + ", ".join(pairs) + "}"
        if isinstance(one, list):
            return "[" + ", ".join(inline(item) for item in one) + "]"
        return json.dumps(one)

    if not isinstance(value, dict):
        return inline(value)
    return "".join(f"{json.dumps(k)} = {inline(v)}\n" for k, v in value.items() if v is not None)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize(
    ("profile", "times"), [(FAST, 1), pytest.param(LONG, 60, marks=pytest.mark.slow)]
)
def test_damage_is_survived(ground: Ground, name: str, profile: settings, times: int) -> None:
    check, examples = PROPERTIES[name]

    @settings(profile, max_examples=times * examples)
    @given(st.integers(0, 2**40))
    def holds(seed: int) -> None:
        check(ground, random.Random(seed))

    holds()
