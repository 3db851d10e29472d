"""What a trained model is asked: how well it predicts, and what it writes.

Torch, which takes seconds to load, is imported once nothing is left to refuse.
"""

from isoflop.trained.evaluation import HeldOut, evaluate_run, slow_precision
from isoflop.trained.opened import Opened, finished_record
from isoflop.trained.sampling import Wishes, sample_run
