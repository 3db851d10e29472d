"""Figures to files: PNG, SVG and PDF by vl-convert, and the table behind each as CSV."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from isoflop import storage
from isoflop.report.figure import Figure
from isoflop.text import visible

PNG_SCALE = 2.5

_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
_FORMULA_STARTS = (*"=+-@", *"\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the start of a formula, in full width as well."""


def write_figure(figure: Figure, folder: Path) -> str:
    """Write `figure` as PNG, SVG, PDF and CSV into `folder`.

    Returns:
        The SVG's text, for the page.

    Raises:
        StorageError: a file cannot be written.
    """
    spec = figure.spec(figure.picture_width)
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE, allowed_base_urls=[])
    storage.write_bytes(folder / f"{figure.name}.png", vl_convert.svg_to_png(svg, scale=PNG_SCALE))
    storage.write_text(folder / f"{figure.name}.svg", svg)
    storage.write_bytes(folder / f"{figure.name}.pdf", vl_convert.svg_to_pdf(svg))
    write_table(figure.table, folder / f"{figure.name}.csv")
    return svg


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write `table` as `table_text` tells it.

    Raises:
        StorageError: the file cannot be written.
    """
    storage.write_text(path, table_text(table))


def table_text(table: pd.DataFrame) -> str:
    """Return `table` as CSV in which no text is taken for a formula by a spreadsheet."""
    return str(table.map(_inert).to_csv(index=False, lineterminator="\n"))


@functools.cache
def vega_javascript() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, from vl-convert, which takes seconds."""
    script: str = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE
    )
    return script


def _inert(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    # A carriage return would end the row for some readers, and what follows begin a cell.
    shown = visible(cell, keep=" \n")
    return f"'{shown}" if shown.startswith(_FORMULA_STARTS) else shown
