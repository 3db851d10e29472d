"""A good table reads back as it was, however it is written."""

import bz2
import gzip
import json
import lzma
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings

from isoflop.fit import run_table

FAST = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=list(HealthCheck),
)
PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
SIZE_NAMES = ["N", "params", "total_params", "Model size", "num_parameters", "config.n_params"]
TOKEN_NAMES = ["D", "tokens", "train/tokens", "tokens_seen", "Training tokens"]
LOSS_NAMES = ["loss", "Final loss", "val_loss", "eval/loss", "summary.eval/loss"]
SEPARATORS = st.sampled_from([",", ";", "\t", "|", "  "])


def digits(value: float, decimal: str, group: str) -> str:
    """Return a number with marks for decimals and thousands, all digits kept."""
    whole, _, rest = np.format_float_positional(value, trim="-").partition(".")
    grouped = f"{int(whole):,}".replace(",", group)
    return f"{grouped}{decimal}{rest}" if rest else grouped


class Style:
    """How one table is written: the same throughout, as people do."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.separator = draw(SEPARATORS)
        self.decimal = draw(st.sampled_from(".,"))
        groups = {".": ["", ",", "'"], ",": ["", ".", "'"]}[self.decimal]
        if self.separator != "  ":
            groups = [*groups, " ", "\u202f"]
        self.group = draw(st.sampled_from(groups))
        self.ending = draw(st.sampled_from(["\n", "\r\n"]))
        self.encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]))
        self.title = draw(st.sampled_from(["", "# a comment, of ours\n", "Sweep of March\n\n"]))
        self.trailing = self.separator != "  " and draw(st.booleans())
        self.packed = draw(st.sampled_from(list(PACKED)))
        self.units = draw(st.sampled_from(["none", "cell", "header"]))
        self.named = [
            draw(st.sampled_from(names)) for names in (SIZE_NAMES, TOKEN_NAMES, LOSS_NAMES)
        ]
        self.scales = [draw(st.sampled_from(list(SCALES))) for _ in range(2)]
        if self.group == "." and self.units != "none":
            self.group = ""  # 1.234 million may be either
        self.kind = draw(st.sampled_from(["text", "text", "text", "jsonl", "json"]))

    def cell(self, value: float) -> str:
        text = digits(value, self.decimal, self.group)
        # A separator within a number stands in quotes.
        return f'"{text}"' if self.separator.strip() and self.separator in text else text

    def scaled(self, value: float, unit: str) -> str:
        text = digits(value / SCALES[unit], self.decimal, self.group) + unit
        return f'"{text}"' if self.separator.strip() and self.separator in text else text


@st.composite
def written(draw: st.DrawFn) -> tuple[pd.DataFrame, str, bytes, Style]:
    """Return a table, and the name and content of a file that holds it."""
    style = Style(draw)
    rows = draw(st.integers(3, 12))
    number = st.integers(20_000, 10**10)
    table = pd.DataFrame(
        {
            "parameters": [float(draw(number)) for _ in range(rows)],
            "tokens": [float(draw(number.map(lambda n: 100 * n))) for _ in range(rows)],
            "loss": [draw(st.integers(10_001, 99_999)) / 1e4 for _ in range(rows)],
            "lr": draw(st.lists(st.sampled_from([0.001, 0.01]), min_size=rows, max_size=rows)),
        }
    )
    names = [*style.named, "lr"]
    if style.kind != "text":
        records = [dict(zip(names, row, strict=True)) for row in table.to_numpy().tolist()]
        text = (
            "".join(json.dumps(one) + "\n" for one in records)
            if style.kind == "jsonl"
            else json.dumps({"runs": records})
        )
        name = f"runs.{style.kind}{style.packed}"
        return table, name, PACKED[style.packed](text.encode(style.encoding)), style
    units = ["", ""] if style.units == "none" else style.scales
    heads = list(names)
    if style.units == "header":
        heads = [
            f"{name} ({unit})" if unit else name
            for name, unit in zip(names, [*units, "", ""], strict=True)
        ]
    if style.separator == "  ":
        heads = [f'"{name}"' for name in heads]
    lines = [style.separator.join(heads)]
    for size, tokens, loss, lr in table.to_numpy().tolist():
        cells = [
            style.scaled(size, units[0])
            if style.units == "cell"
            else style.cell(size / SCALES[units[0]]),
            style.scaled(tokens, units[1])
            if style.units == "cell"
            else style.cell(tokens / SCALES[units[1]]),
            style.cell(loss),
            style.cell(lr),
        ]
        lines.append(style.separator.join(cells) + (style.separator if style.trailing else ""))
    text = style.title + style.ending.join(lines) + style.ending
    name = draw(st.sampled_from(["runs.csv", "runs.txt", "runs.tsv"])) + style.packed
    return table, name, PACKED[style.packed](text.encode(style.encoding)), style


def reads_back(example: tuple[pd.DataFrame, str, bytes, Style]) -> None:
    table, name, held, _ = example
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(held)
        read = run_table(path)
    expected = table[["parameters", "tokens", "loss"]].drop_duplicates().to_numpy()
    found = read.table[["parameters", "tokens", "loss"]].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-11, err_msg=str(held[:300]))


@FAST
@given(written())
def test_a_table_reads_back(example: tuple[pd.DataFrame, str, bytes, Style]) -> None:
    reads_back(example)


@pytest.mark.slow
@settings(FAST, derandomize=False, max_examples=1000, print_blob=True)
@given(written())
def test_many_tables_read_back(example: tuple[pd.DataFrame, str, bytes, Style]) -> None:
    reads_back(example)
