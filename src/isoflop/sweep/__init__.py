"""Which run of a study goes next, and local processes that train them. No torch in this process.

`run_study` trains what a study needs and goes on where it stopped; `status` tells where it stands;
`settled` tells its precision; `export` writes its records where they can be committed; `clean`
frees disk; `rebuild` trains the best models again.
"""

from isoflop.sweep.cleaning import Freed, clean
from isoflop.sweep.ledger import Ledger, export
from isoflop.sweep.precision import Settled, export_choice, kept_precision, settled
from isoflop.sweep.rebuilding import BestModel, Rebuilt, best_models, rebuild
from isoflop.sweep.running import run_study
from isoflop.sweep.scheduler import Outcome
from isoflop.sweep.status import RunRow, StudyStatus, status

__all__ = [
    "BestModel",
    "Freed",
    "Ledger",
    "Outcome",
    "Rebuilt",
    "RunRow",
    "Settled",
    "StudyStatus",
    "best_models",
    "clean",
    "export",
    "export_choice",
    "kept_precision",
    "rebuild",
    "run_study",
    "settled",
    "status",
]
