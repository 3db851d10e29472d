"""Whatever is in a file, a command works or says in one line what is wrong with it.

Never a traceback, never a write outside. Each property is tried on a few fixed examples here, and
on many random ones in the slow test.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damage import damage_file
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
SCALED = {
    **{key: value for key, value in STUDY.items() if key not in ("budgets_flops", "grid")},
    "data": {"corpus": "text.txt", "sequence_length": 64, "windows": "documents"},
    "positions": {"ranges": 4, "trailing": 16},
    "scaling": {"models": [{"blocks": 2, "width": 32}, {"blocks": 3, "width": 48}]},
}
TOML = """
name = "small"
budgets_flops = [1.5e11]
data = { corpus = "text.txt", sequence_length = 64 }
grid = { sizes = 3, margin = 1, centre_parameters = 60e3 }
variants = [{ name = "Baseline" }, { name = "MoD", depth = { kind = "top_k", capacity = 0.5 } }]
"""
DOCUMENTS = [TEXT[at : at + 400] for at in range(0, 4000, 400)]


class Ground:
    """Folders made once, of which every example damages a copy."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recorded = Sandbox(root / "recorded")
        fill(self.recorded)
        asked = ("predict", "small.json", "--budget", "1e12", "--resamples", "20")
        written = "results/small/predictions/p.json"
        assert self.recorded(*asked, "--register", written).code == 0
        self.plain = Sandbox(root / "plain")
        for number, values in enumerate((STUDY, RECORDED, SCALED)):
            self.plain.study(values, f"study-{number}.json")
        (self.plain.home / "study-3.toml").write_text(TOML)
        self._write_tables(self.plain.home)
        self._write_corpora(self.plain)
        (root / "text.txt").write_text(TEXT)
        data = DataConfig(corpus=str(root / "text.txt"), tokenizer="bpe:270", test_fraction=0.2)
        self.store = prepare(data, root / "cache").folder

    def _write_tables(self, home: Path) -> None:
        sizes = [10.0**power for power in (4, 4.5, 5, 5.5, 6)]
        columns = {"loss": [3.2, 3.1, 3.05, 3.1, 3.2], "parameters": sizes, "tokens": [1e7] * 5}
        rows = pd.DataFrame({**columns, "variant": list("aabba"), "seed": [0, 1, 0, 1, 0]})
        rows.to_csv(home / "t.csv", index=False)
        rows.to_csv(home / "t.csv.gz", index=False)
        rows.to_csv(home / "t.txt", index=False, sep=";")
        rows.to_json(home / "t.jsonl", orient="records", lines=True)
        rows.to_json(home / "t.json", orient="records")
        rows.to_parquet(home / "t.parquet")
        rows.to_excel(home / "t.xlsx", index=False)

    def _write_corpora(self, box: Sandbox) -> None:
        (box.home / "c.txt").write_text("\n\n".join(DOCUMENTS))
        lines = (json.dumps({"text": one}) + "\n" for one in DOCUMENTS)
        (box.home / "c.jsonl").write_text("".join(lines))
        pd.DataFrame({"text": DOCUMENTS}).to_parquet(box.home / "c.parquet")
        for name, tokenizer in (("c.txt", "bytes"), ("c.jsonl", "bpe:300"), ("c.parquet", "bytes")):
            data = {"corpus": name, "sequence_length": 64, "tokenizer": tokenizer}
            box.study({**STUDY, "data": data}, f"on-{name}.json")


def commands_on(ground: Ground, which: str, draw: random.Random) -> None:
    """Damage a file of a copy, and run commands on it."""
    source, patterns, commands = COMMANDS[which]
    box = getattr(ground, source).copied(ground.root / "copy")
    paths = sorted(
        path
        for pattern in patterns
        for path in box.home.glob(pattern)
        if path.is_file() and not path.name.startswith("claim-")
    )
    path = draw.choice(paths)
    damage_file(path, draw)
    if which == "a study's folder":
        commands = (draw.choice(commands),)
    for arguments in commands:
        before = listing(box.root)
        survives(box(*(one.replace("FILE", path.name) for one in arguments)))
        touched = changed(before, listing(box.root))
        own = ("home/runs", "home/results", "home/cache", "home/out")
        assert all(one.startswith(own) for one in touched), touched


COMMANDS = {
    "a study": ("plain", ("study-*",), (("costs", "FILE"), ("plan", "FILE"), ("status", "FILE"))),
    "a table": ("plain", ("t.*",), (("fit", "FILE", "--resamples", "20"),)),
    "a corpus": ("plain", ("c.*",), (("plan", "on-FILE.json"),)),
    "files of runs": (
        "recorded",
        ("**/record.json", "**/metrics.jsonl", "**/records.jsonl", "**/pinned.json"),
        (("status", "small.json"), ("export", "small.json", "--to", "out")),
    ),
    "a study's folder": (
        "recorded",
        ("runs/**/*", "results/**/*"),
        (
            ("predict", "small.json", "--budget", "1e12", "--resamples", "20"),
            ("status", "small.json"),
            ("report", "small.json"),
            ("export", "small.json", "--to", "out"),
            ("clean", "small.json"),
        ),
    ),
}
"""What is damaged: where, which files, and what is run then."""


def a_prepared_corpus(ground: Ground, _: str, draw: random.Random) -> None:
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


EXAMPLES = {"a prepared corpus": 16, "a study": 10, "a study's folder": 4}
"""How many are tried by default, else 6."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("which", ["a prepared corpus", *COMMANDS])
@pytest.mark.parametrize(
    ("profile", "times"), [(FAST, 1), pytest.param(LONG, 60, marks=pytest.mark.slow)]
)
def test_damage_is_survived(ground: Ground, which: str, profile: settings, times: int) -> None:
    check = commands_on if which in COMMANDS else a_prepared_corpus

    @settings(profile, max_examples=times * EXAMPLES.get(which, 6))
    @given(st.integers(0, 2**40))
    def holds(seed: int) -> None:
        check(ground, which, random.Random(seed))

    holds()
