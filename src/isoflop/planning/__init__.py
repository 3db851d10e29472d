"""From a study to its runs: sizes, recipe, the adaptive grid, and what it will take. No torch."""

from isoflop.planning.cell import PlannedRun, Purpose
from isoflop.planning.edges import Edge, edges
from isoflop.planning.grid import Bound, Bracket, bound, brackets, foreseen_runs, next_runs
from isoflop.planning.plan import (
    Plan,
    PlannedRow,
    make_plan,
    makespan,
    parents,
)
from isoflop.planning.recipe import (
    achieved_flops,
    affordable,
    check_capacity,
    expected_optimum,
    ladder,
    resolve,
    sequences_per_step,
    tokens_per_step,
)
from isoflop.planning.scaling import scaling_runs
from isoflop.planning.search import Trial, next_trials, trials
from isoflop.planning.sizes import Ladder, shape
from isoflop.planning.warnings import (
    first_of_each_kind,
    planned_warnings,
    short_flops,
)
