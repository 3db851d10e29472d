"""Row 23: markup, control codes, bidirectional overrides and formulas in text that others wrote.

Injected in names of variants and files, reasons of failed runs, texts of tokens and columns of
tables. Expected: inert in the page, on the terminal, in errors and in the tables of figures.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hostile_commands import Sandbox

from isoflop.config import SampledToken
from isoflop.report.render import write_table
from isoflop.runs import RunStore, read_records, write_records

TEXTS = (
    "</script><script>alert(1)</script>",
    "]]><script>alert(2)</script>",
    "--><img src=x onerror=alert(3)>",
    "<!--<script>",
    "{{ 7*7 }}{% raw %}",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2066\u200b\ufeff",
    "=cmd()",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "[red]rich[/red]",
    "line\nbreak\u2028and\u2029more",
)
CODES = TEXTS[5:9] + TEXTS[13:]
"""Those that a terminal would act on."""
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}")


class Page(HTMLParser):
    """The elements of a page, its attributes, and its text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.comments = 0
        self.text = ""
        self._raw = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_comment(self, data):
        self.comments += 1

    def handle_data(self, data):
        if not self._raw:
            self.text += data


def rewrite(box: Sandbox, text: str) -> str:
    """Put a text wherever the study's author, its runs and its models can put one."""
    study = json.loads((box.home / "small.json").read_text())
    study["variants"][0]["name"] = text
    study["variants"][1]["name"] = f"{text} routed"
    study["baseline"] = text
    file = box.study(study)
    store = RunStore(box.home / "runs" / "small")
    for folder in store.folders():
        record, sample = folder.record(), folder.sample()
        if record is not None and record.state != "finished":
            changed = record.model_copy(update={"reason": text})
            (folder.path / "record.json").write_text(changed.model_dump_json())
        if sample is not None:
            tokens = (SampledToken(id=1, text=text, processed=()), *sample.tokens)
            (folder.path / "sample.json").write_text(
                sample.model_copy(update={"tokens": tokens}).model_dump_json()
            )
            found = folder.evaluation()
            assert found is not None
            texts = dict.fromkeys(found.token_texts, text)
            (folder.path / "evaluation.json").write_text(
                found.model_copy(update={"token_texts": texts}).model_dump_json()
            )
    path = box.home / "results" / "small" / "records.jsonl"
    first, *others = read_records(path)
    write_records(path, [first.model_copy(update={"state": "failed", "reason": text}), *others])
    return file


def is_inert(text: str) -> bool:
    """Return whether a terminal does nothing but print the text."""
    kinds = {unicodedata.category(one) for one in text if one != "\n"}
    return not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_row_23_hostile_text_is_inert_everywhere(recorded: Sandbox) -> None:
    # Much of it at once: a report takes a second, and a name at most 80 characters.
    file = rewrite(recorded, f"=cmd()/../{TEXTS[0]}-->]]>\x1b[31m\u202e")
    with recorded.contained("runs/small/report"):
        said = [
            recorded(*arguments)
            for arguments in (
                ("status", file),
                ("costs", file),
                ("fit", file, "--resamples", "20"),
                ("report", file),
            )
        ]
    assert [one.code for one in said] == [0] * len(said)
    assert all(is_inert(one.out + one.err) for one in said)
    html = (recorded.home / "runs/small/report/index.html").read_text()
    page = Page(html)
    assert page.tags.count("script") == 3
    assert not {"iframe", "object", "embed", "base", "link", "form", "svg"} & set(page.tags)
    assert not any(name.startswith("on") for name in page.attributes)
    assert page.comments == 0
    assert "<script>alert(1)" in page.text
    assert is_inert(html)
    figures = recorded.home / "runs/small/report/figures"
    for svg in figures.glob("*.svg"):
        assert all("script" not in one.tag for one in ElementTree.parse(svg).iter())
    tables = sorted(figures.glob("*.csv"))
    assert any("cmd()" in path.read_text() for path in tables)
    for path in tables:
        with path.open(newline="") as opened:
            for row in csv.reader(opened):
                for cell in row:
                    assert not cell.startswith(FORMULAS) or is_number(cell), (path, cell)


@pytest.mark.parametrize("text", CODES, ids=range(len(CODES)))
def test_the_terminal_prints_and_does_nothing_else(recorded: Sandbox, text: str) -> None:
    file = rewrite(recorded, text)
    for command in ("status", "plan", "costs"):
        said = recorded(command, file)
        assert said.code == 0, said
        assert is_inert(said.out + said.err), said


@pytest.mark.parametrize(
    "text", [CODES[0], CODES[2], CODES[-1], "\ud800", "x" * 100_000], ids=range(5)
)
def test_errors_are_one_inert_line(recorded: Sandbox, text: str) -> None:
    study = json.loads((recorded.home / "small.json").read_text())
    wrong = (
        {"name": text},
        {"baseline": text},
        {text: 1},
        {"convention": text},
        {"variants": [{"name": "a", "depth": {"kind": text}}]},
        {"data": {"corpus": text}},
        {"data": {"corpus": "a", "tokenizer": text}},
    )
    for changes in wrong:
        assert is_inert(recorded.refused("run", recorded.study({**study, **changes})))
    (recorded.home / "t.csv").write_text("loss,parameters,tokens\n3,1e5,1e7\n")
    plain = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert is_inert(recorded.refused("fit", "t.csv", "--cluster", plain))
    assert is_inert(recorded.refused("predict", "t.csv", "--budget", "1e12", "--columns", plain))
    assert is_inert(recorded.refused("plan", "small.json", "--accelerator", plain))
    if len(plain) < 200:
        assert is_inert(recorded.refused("costs", f"{plain}.toml"))


def test_a_hostile_path_is_printed_inert(recorded: Sandbox) -> None:
    name = "\x1b[31m\u202e.json"
    (recorded.home / name).write_text((recorded.home / "small.json").read_text())
    for arguments in (("status", name), ("export", name, "--to", "\x1b[31m")):
        said = recorded(*arguments)
        assert said.code == 0
        assert is_inert(said.out + said.err), said


@pytest.mark.parametrize("text", [*TEXTS, "\N{FULLWIDTH EQUALS SIGN}1"], ids=range(len(TEXTS) + 1))
def test_no_cell_of_a_table_is_a_formula(tmp_path: Path, text: str) -> None:
    import pandas as pd

    rows = pd.DataFrame({"variant": [text, f" {text}", "plain"], "loss": [-1.5, 2.0, 3.0]})
    write_table(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        _, *cells = csv.reader(file)
    assert len(cells) == 3
    for variant, loss in cells:
        assert not variant.startswith(FORMULAS)
        float(loss)  # numbers stay numbers, those below zero too


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
