"""The folder of one run: configuration, claim, attempts, metrics, record; a study's folders."""

from isoflop.runs.attempts import Attempt, Ending, without_progress
from isoflop.runs.claim import Holder, RunClaimed
from isoflop.runs.folder import Pinned, RunFolder, parse_value
from isoflop.runs.metrics import MetricsLog, Progress, branched, read_metrics
from isoflop.runs.store import (
    ENDINGS,
    RunStore,
    committed_records,
    read_records,
    record_files,
    replace_records,
    write_records,
)
