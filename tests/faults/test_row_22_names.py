"""Row 22: names such as `../x`, absolute ones, NUL, 300 characters, and symbolic links.

Injected as names of studies, variants, corpora, runs, columns and options, and as links in every
folder that a command writes into. Expected: refused in one line, or contained in the own folders.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hostile_commands import STUDY, TEXT, Sandbox, changed, listing, survives

from isoflop.config.load import load_study
from isoflop.data import prepare

UNSAFE = (
    "../x",
    "/nowhere/x",
    "a/b",
    "a\0b",
    "n" * 300,
    "a\nb",
    "..",
    ".",
    "",
    " ",
    "a ",
    ".hidden",
    "-rf",
    "a\\b",
    "\N{CYRILLIC SMALL LETTER A}bc",
    "\N{FULLWIDTH SOLIDUS}x",
    "\N{DIVISION SLASH}etc",
    "\u202eabc",
)
HARMLESS = ("trailing.", "trailing..", "CON", "nul.txt", "aux", "A", "a" * 64)
"""Names that other systems find odd; here they are folders like any other."""


def test_row_22_a_study_that_is_no_name_of_a_folder_is_refused(box: Sandbox) -> None:
    for name in UNSAFE:
        file = box.study({**STUDY, "name": name})
        for command in ("run", "export"):
            assert "small.json: name is" in box.refused(command, file)


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_names_of_studies_stay_in_their_own_folder(recorded: Sandbox, name: str) -> None:
    for folder in ("runs", "results"):
        (recorded.home / folder / "small").rename(recorded.home / folder / name)
    values = json.loads((recorded.home / "small.json").read_text())
    file = recorded.study({**values, "name": name})
    with recorded.contained(f"out/{name}", "out"):
        assert recorded("export", file, "--to", "out").code == 0
    assert (recorded.home / "out" / name / "records.jsonl.gz").is_file()


def test_names_of_variants_name_no_file(recorded: Sandbox) -> None:
    values = json.loads((recorded.home / "small.json").read_text())
    values["variants"][0]["name"], values["variants"][1]["name"] = "../x", "/tmp/x\0y"
    file = recorded.study(values)
    with recorded.contained("out"):  # a report of such names: see row 23
        assert recorded("export", file, "--to", "out").code == 0
    for name in ("", "v" * 81):
        assert "name" in recorded.refused(
            "plan", recorded.study(STUDY | {"variants": [{"name": name}]})
        )


def test_a_run_that_the_study_has_not_is_refused(box: Sandbox) -> None:
    for run_id in (*filter(None, UNSAFE), "CON", "0" * 12):
        assert "has no run" in box.refused("train", "small.json", "--", run_id)


def test_a_corpus_that_is_not_there_is_told(box: Sandbox) -> None:
    for corpus in (one for one in UNSAFE if one not in ("", ".", "..")):
        file = box.study({**STUDY, "data": {"corpus": corpus}})
        assert "corpus is '" in box.refused("run", file)


@pytest.mark.parametrize("out", ["o" * 300, "small.json/x", "text.txt"])
def test_an_out_that_can_be_no_folder_is_one_line(box: Sandbox, out: str) -> None:
    (box.home / "text.txt").write_text(TEXT * 10)
    before = listing(box.root)
    for command in ("status", "report", "export", "clean", "run"):
        survives(box(command, "small.json", "--out", out))
    touched = changed(before, listing(box.root))
    # `run` prepares its corpus before it writes to the study's folder.
    assert all(one.startswith("home/cache") for one in touched), touched


def test_a_registered_prediction_that_cannot_be_written_is_one_line(recorded: Sandbox) -> None:
    asked = ("predict", "small.json", "--budget", "1e12", "--resamples", "20", "--register")
    assert "text.txt" in recorded.refused(*asked, "text.txt/p.json")


@pytest.mark.parametrize("column", ["../x", "a\0b", "c" * 300, "a\nb", "\u202ex"])
def test_a_column_that_the_table_has_not_is_told(box: Sandbox, column: str) -> None:
    (box.home / "t.csv").write_text("loss,parameters,tokens\n3,1e5,1e7\n")
    # What is no column's name is read as arithmetic of columns.
    said = box.refused("fit", "t.csv", "--columns", f"loss={column}")
    assert said.endswith("['loss', 'parameters', 'tokens']")
    assert "has no column" in box.refused("fit", "t.csv", "--cluster", column)


def link(box: Sandbox, place: str, *, folder: bool) -> None:
    """Move what is at a place beside the folder to work in, and leave a link."""
    path = box.home / place
    target = box.beside / "moved"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(target)
    elif folder:
        target.mkdir()
    else:
        target.write_text("{}")
    path.symlink_to(target)


def run_id_of(box: Sandbox, name: str) -> str:
    found = sorted((box.home / "runs" / "small" / "runs").glob(f"*/{name}"))
    return found[0].parent.name


RUN_FILES = ("config.json", "record.json", "metrics.jsonl", "evaluation.json", "sample.json")


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_link_in_a_run_folder_is_refused(recorded: Sandbox, name: str) -> None:
    run_id = run_id_of(recorded, "pinned.json" if name == "metrics.jsonl" else name)
    if name == "metrics.jsonl":
        (recorded.home / "runs/small/runs" / run_id / "record.json").unlink(missing_ok=True)
    link(recorded, f"runs/small/runs/{run_id}/{name}", folder=False)
    asked = {
        "config.json": ("sample", f"runs/small/runs/{run_id}"),
        "record.json": ("status", "small.json"),
        "metrics.jsonl": ("status", "small.json"),
    }
    line = recorded.refused(*asked.get(name, ("report", "small.json")))
    assert f"{name} is a symbolic link" in line


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("runs/small/runs", "status"),
        ("runs/small/runs/RUN", "status"),
        ("runs/small/report", "report"),
        ("runs/small/report/figures", "report"),
        ("runs/small/search", "report"),
        ("runs/small/search", "search"),
        ("results/small", "status"),
        ("results/small", "export"),
        ("results/small/figures", "export"),
        ("results/small/predictions", "report"),
        ("runs/small/study.json", "run"),
        ("runs/small/bench.json", "report"),
        ("results/small/records.jsonl", "status"),
        ("results/small/records.jsonl.gz", "status"),
        ("results/small/records.jsonl.gz", "export"),
        ("results/small/records.jsonl", "export"),
        ("results/small/study.json", "export"),
        ("results/small/bench.json", "export"),
        ("results/small/search.jsonl", "report"),
    ],
)
def test_what_is_a_link_is_refused(recorded: Sandbox, place: str, command: str) -> None:
    box = recorded
    if command == "run":  # whose data is not that of the made-up records
        for path in ("results", "runs"):
            (box.home / path).rename(box.home / f"old-{path}")
        box.study({**STUDY, "grid": {**STUDY["grid"], "sizes": 1}})
    folder = "." not in place
    run = place.replace("RUN", run_id_of(box, "record.json")) if "RUN" in place else place
    link(box, run, folder=folder)
    before = listing(box.beside)
    assert "is a symbolic link" in box(command, "small.json").line
    assert listing(box.beside) == before


def test_a_linked_cache_entry_is_refused(box: Sandbox) -> None:
    with contextlib.chdir(box.home):
        store = prepare(load_study(Path("small.json")).data, Path("cache"))
    link(box, str(store.folder.parent), folder=True)
    assert "is a symbolic link" in box.refused("run", "small.json")


def test_the_study_folder_itself_may_lie_elsewhere(recorded: Sandbox) -> None:
    # Whoever has a larger disk puts the folder there.
    link(recorded, "runs/small", folder=True)
    assert recorded("status", "small.json").code == 0
