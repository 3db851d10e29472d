"""Reads what runs write as they train, and tells a tracker: training knows nothing of it.

Schema: `train/loss`, `train/learning_rate`, `train/gradient_norm`, `train/tokens`, `train/flops`,
`train/seconds`; at the end `SPLIT/DECISION/loss` and `SPLIT/DECISION/bits_per_byte`, and
`parameters`, `train_flops`, `seconds`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isoflop import storage
from isoflop.config import RunRecord
from isoflop.runs import RunFolder
from isoflop.tracking.trackers import KINDS, Kind, Tracker, check_installed

SECONDS_BETWEEN_LOOKS = 5.0
IDLE_SHARE = 20
"""Times as long as a look took is waited for the next one."""
MOST_POINTS = 1000
"""Of a run; longer ones are told of every so many steps, and of the last."""
LOGGED = ("loss", "learning_rate", "gradient_norm", "tokens", "flops", "seconds")


class Follower:
    """Follows the runs of a folder.

    What a tracker was told is kept in `tracking/KIND.json`, so that runs that go on later are told
    of from where they were left.

    Args:
        root: the folder in whose `runs` they lie.
        kind: the tracker.
        study: what the runs belong to there.
        only: the one run that is followed; None for all.

    Raises:
        ValueError: the tracker's package is not installed.
    """

    def __init__(self, root: Path, kind: Kind, study: str, only: str | None = None) -> None:
        check_installed(kind)
        self.folder = root / "tracking"
        self._runs, self._kind, self._study = root / "runs", kind, study
        self._only = only
        self._kept = self.folder / f"{kind}.json"
        self._told: dict[str, int] = {}
        if self._kept.is_file():
            found = storage.read_json(self._kept)
            self._told = dict(found) if isinstance(found, dict) else {}
        self._open: dict[str, Tracker] = {}

    def look(self) -> None:
        """Tell the tracker of all that is new."""
        before = dict(self._told)
        folders = storage.entries(self._runs) if self._runs.is_dir() else []
        for path in folders:
            if self._only not in (None, path.name):
                continue
            if self._told.get(path.name) != ENDED and (path / "config.json").is_file():
                self._follow(RunFolder(path))
        if self._told != before:
            storage.write_json(self._kept, dict(self._told))

    def close(self) -> None:
        """Tell of what is new, and let go of all runs."""
        self.look()
        for tracker in self._open.values():
            tracker.close()
        self._open.clear()

    def _follow(self, folder: RunFolder) -> None:
        name = folder.path.name
        # The record comes after the last metrics, which are read behind it.
        record = folder.record()
        rows = folder.read_metrics()[0]
        if record is None and not rows:
            return
        config, last = folder.config(), self._told.get(name, 0)
        if name not in self._open:
            told = flat(config.model_dump(mode="json"))
            self._open[name] = KINDS[self._kind](self.folder, self._study, name, told)
        every = -(-config.steps // MOST_POINTS)
        for row in rows:
            step = row["step"]
            if step > last and (step % every == 0 or step == config.steps):
                values = {f"train/{key}": row[key] for key in LOGGED if row.get(key) is not None}
                self._open[name].log(step, values)
                self._told[name] = step
        if record is not None:
            self._open[name].end(summary_of(record))
            self._open.pop(name).close()
            self._told[name] = ENDED


ENDED = -1
"""Stands for the last step of a run whose record was told."""


@contextmanager
def tracking(root: Path, kind: Kind | None, study: str, only: str | None = None) -> Iterator[None]:
    """Tell a tracker of the runs in a folder for as long as the block lasts; None tells nobody.

    A tracker that fails is warned of and left: it never stops a run.
    """
    if kind is None:
        yield
        return
    follower, done = Follower(root, kind, study, only), threading.Event()

    def follow() -> None:
        wait = SECONDS_BETWEEN_LOOKS
        try:
            while not done.wait(wait):
                began = time.monotonic()
                follower.look()
                # Training has the cores.
                wait = max(SECONDS_BETWEEN_LOOKS, IDLE_SHARE * (time.monotonic() - began))
            follower.close()
        except Exception as error:  # of any tracker
            warnings.warn(f"{kind} is told no more: {type(error).__name__}: {error}", stacklevel=2)

    thread = threading.Thread(target=follow, name="tracking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings as one table whose keys are joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, int | float | str | None) else str(value)
    return found


def summary_of(record: RunRecord) -> dict[str, float]:
    """Return what a run came to."""
    found: dict[str, float] = {
        "parameters": record.parameters.total,
        "train_flops": record.train_flops[record.config.convention],
        "seconds": record.seconds,
    }
    for one in record.evaluations:
        if one.weights == "last" and one.cap is None:
            name = f"{one.split}/{one.decision}"
            found[f"{name}/loss"] = one.loss
            if one.bits_per_byte is not None:
                found[f"{name}/bits_per_byte"] = one.bits_per_byte
    return found
