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

PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
NAMES = (
    ("N", "params", "total_params", "Model size", "num_parameters", "config.n_params"),
    ("D", "tokens", "train/tokens", "tokens_seen", "Training tokens"),
    ("loss", "Final loss", "val_loss", "eval/loss", "summary.eval/loss"),
    ("lr",),
)
Example = tuple[pd.DataFrame, str, bytes]
"""A table, and the name and content of a file that holds it."""


@st.composite
def written(draw: st.DrawFn) -> Example:
    """Return a table in a file of one style throughout, as people do."""

    def one_of(*choices: str) -> str:
        return draw(st.sampled_from(choices))

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
    named = table.set_axis([one_of(*names) for names in NAMES], axis="columns")
    packed = one_of(*PACKED)
    ending = one_of("csv", "txt", "tsv", "jsonl", "json")
    match ending:
        case "jsonl":
            text = named.to_json(orient="records", lines=True, double_precision=15)
        case "json":
            text = json.dumps({"runs": named.to_dict("records")})
        case _:
            text = as_text(named, draw)
    encoded = text.encode(one_of("utf-8", "utf-8-sig", "utf-16", "utf-16-le"))
    return table, f"runs.{ending}{packed}", PACKED[packed](encoded)


def as_text(table: pd.DataFrame, draw: st.DrawFn) -> str:
    """Return a table as lines of fields, with any marks, separators and units."""

    def one_of(*choices: str) -> str:
        return draw(st.sampled_from(choices))

    separator, decimal = one_of(",", ";", "\t", "|", "  "), one_of(".", ",")
    wide = separator == "  "
    units = one_of("none", "cell", "header")
    # 1.234 million may be either.
    point = ["."] if decimal == "," and units == "none" else []
    comma = [","] if decimal == "." else []
    group = one_of("", "'", *point, *comma, *([] if wide else [" ", "\u202f"]))
    scales = [one_of(*SCALES), one_of(*SCALES), "", ""] if units != "none" else [""] * 4

    def cell(value: float, scale: str) -> str:
        shown = np.format_float_positional(value / SCALES[scale], trim="-")
        whole, _, rest = shown.partition(".")
        text = f"{int(whole):,}".replace(",", group) + (f"{decimal}{rest}" if rest else "")
        text += scale if units == "cell" else ""
        # A separator within a number stands in quotes.
        return f'"{text}"' if separator.strip() and separator in text else text

    in_header = [f" ({scale})" if scale and units == "header" else "" for scale in scales]
    heads = [f"{name}{scale}" for name, scale in zip(table, in_header, strict=True)]
    lines = [[f'"{name}"' if wide else name for name in heads]]
    lines += [list(map(cell, row, scales)) for row in table.to_numpy().tolist()]
    after = "" if wide else one_of("", separator)
    title, end = one_of("", "# a comment, of ours\n", "Sweep of March\n\n"), one_of("\n", "\r\n")
    ends = ["", *[after] * len(table)]
    return title + "".join(
        separator.join(line) + own + end for line, own in zip(lines, ends, strict=True)
    )


@pytest.mark.parametrize("examples", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_table_reads_back(examples: int) -> None:
    @settings(
        derandomize=examples == 25,
        database=None,
        deadline=None,
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
    )
    @given(written())
    def reads_back(example: Example) -> None:
        table, name, held = example
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(held)
            read = run_table(path)
        columns = ["parameters", "tokens", "loss"]
        expected = table[columns].drop_duplicates().to_numpy()
        found = read.table[columns].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-11, err_msg=str(held[:300]))

    reads_back()
