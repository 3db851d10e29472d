"""The recipe that was searched: what each setting is best at, by budget and variant."""

from __future__ import annotations

import pandas as pd

from isoflop.fit.search import SearchResult, plain
from isoflop.notation import scientific
from isoflop.report import blocks
from isoflop.report.analysis import Analysis


def section(analysis: Analysis) -> blocks.Section | None:
    """Return what the search of settings found; None where there was none, or nothing yet."""
    search = analysis.evidence.search
    if search is None or search.found is None or not search.found.recipes:
        return None
    found = search.found
    caption = (
        "Settings that were searched, by validation loss: the value that is best with the others "
        "at the centre, with its 95% interval; or that any value tried does within so many nats, "
        "or that it is best at an end, beyond which none can be tried; or that it is unsure."
    )
    rows: list[dict[str, blocks.Text]] = [
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
    told = [
        f"{recipe.variant} at {scientific(recipe.budget_flops)} FLOPs: {recipe.trials} trials."
        for recipe in found.recipes
    ]
    told += [
        f"{law.variant}: {law.setting.replace('_', ' ')} = {plain(law.value)} (C / "
        f"{scientific(analysis.study.budgets_flops[0])})^a, a = {law.exponent.words('.2f')}, from "
        f"{law.budgets} budgets."
        for law in found.laws
    ]
    table = blocks.table(caption, rows, csv="search", data=_data(found))
    return blocks.Section("The recipe that was searched", [table, blocks.Sentences(told)])


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
