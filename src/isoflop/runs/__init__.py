"""The run folder: configuration, metrics, record and claim of one run; a study's run folders."""

from isoflop.runs.folder import Pinned, RunClaimed, RunFolder, parse_value
from isoflop.runs.metrics import MetricsLog, read_metrics
from isoflop.runs.store import RunStore, read_records, write_records

__all__ = [
    "MetricsLog",
    "Pinned",
    "RunClaimed",
    "RunFolder",
    "RunStore",
    "parse_value",
    "read_metrics",
    "read_records",
    "write_records",
]
