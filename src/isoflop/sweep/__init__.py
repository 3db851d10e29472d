"""Whole studies: plan, search, train and export them, and tell where they stand.

`plan_study` tells what a study takes; `run_study` trains what it needs and goes on where it
stopped; `status` tells where it stands; `settled` tells its precision; `clean` frees disk;
`rebuild` trains the best models again. `isoflop.sweep.fits`, `search` and `report` hold the entries
that need the fits or the figures. No torch in this process.
"""

from isoflop.sweep.ledger import Folders, Ledger, export
from isoflop.sweep.models import BestModel, Freed, Rebuilt, best_models, clean, rebuild
from isoflop.sweep.plan import Machine, plan_study
from isoflop.sweep.precision import Settled, kept_precision, settled
from isoflop.sweep.running import run_study
from isoflop.sweep.schedule.executor import Execution
from isoflop.sweep.schedule.scheduler import Outcome
from isoflop.sweep.status import Lookout, RunRow, StudyStatus, status
