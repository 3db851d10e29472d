"""What a recipe rests on: trials of it, as many for every variant, and rates tried first."""

from isoflop.planning.search.contenders import Known, search, searched_budgets
from isoflop.planning.search.first import (
    FIRST_ADDED,
    FirstCheck,
    first_check_runs,
    first_checks,
)
from isoflop.planning.search.laws import found_variants
from isoflop.planning.search.trials import Trial, next_trials, trials
