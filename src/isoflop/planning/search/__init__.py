"""What a recipe rests on: trials of it, as many for every variant, and rates tried first.

`contenders`, which needs the fits, is not loaded with the rest.
"""

from isoflop.planning.search.first import FirstCheck, first_check_runs, first_checks
from isoflop.planning.search.trials import Trial, next_trials, trials
