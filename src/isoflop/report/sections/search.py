"""The recipe that was searched: what each setting is best at, by budget and variant."""

from __future__ import annotations

import pandas as pd

from isoflop.fit.search import SearchResult, plain
from isoflop.notation import scientific
from isoflop.report import blocks
from isoflop.report.analysis import Analysis
from isoflop.report.words.prose import caption, told


def section(analysis: Analysis) -> blocks.Section | None:
    """Return what the search of settings found; None where there was none, or nothing yet."""
    search = analysis.evidence.search
    if search is None or search.found is None or not search.found.recipes:
        return None
    found = search.found
    rows: list[blocks.Row] = [
        {
            "#Budget": scientific(recipe.budget_flops),
            ".Variant": blocks.variant(recipe.variant),
            "Setting": one.setting.replace("_", " "),
            "#Tried": f"{plain(one.low)} to {plain(one.high)}",
            "Best": one.words,
        }
        for recipe in found.recipes
        for one in recipe.settings
    ]
    table = blocks.table(caption("search"), rows, csv="search", data=_data(found))
    sentences = told("study", "searched", found, analysis)
    return blocks.Section("The recipe that was searched", [table, blocks.Sentences(sentences)])


def _data(found: SearchResult) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "budget_flops": recipe.budget_flops,
            "variant": recipe.variant,
            "setting": one.setting,
            "standing": one.standing,
            "lowest_tried": one.low,
            "highest_tried": one.high,
            **blocks.with_columns("best", one.best),
            "chosen": one.chosen,
            "moves_nats": one.moves_nats,
        }
        for recipe in found.recipes
        for one in recipe.settings
    )
