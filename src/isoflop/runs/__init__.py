"""The run folder: configuration, metrics, record and claim of one run; a study's run folders."""

from isoflop.runs.folder import Pinned, RunClaimed, RunFolder
from isoflop.runs.metrics import MetricsLog, read_metrics
from isoflop.runs.store import RunStore, read_records, write_records

__all__ = [
    "MetricsLog",
    "Pinned",
    "RunClaimed",
    "RunFolder",
    "RunStore",
    "read_metrics",
    "read_records",
    "write_records",
]
