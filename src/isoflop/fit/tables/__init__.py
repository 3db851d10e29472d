"""Tables of runs as people publish them: any usual format, names, numbers and units."""

from isoflop.fit.tables.aliases import ALIASES
from isoflop.fit.tables.formats import ENDINGS, is_json_table
from isoflop.fit.tables.grouping import TOLERANCE, group_budgets
from isoflop.fit.tables.left_out import LeftOutRows
from isoflop.fit.tables.reading import RunTable, read_table, run_table

__all__ = [
    "ALIASES",
    "ENDINGS",
    "TOLERANCE",
    "LeftOutRows",
    "RunTable",
    "group_budgets",
    "is_json_table",
    "read_table",
    "run_table",
]
