"""The trackers: each is told of one run as `Tracker` says.

No key is asked for or written: trackers that have servers take theirs from their own environment
variables, and work offline without (`WANDB_MODE=offline`, a local `MLFLOW_TRACKING_URI`).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from isoflop.text import quoted

Kind = Literal["csv", "tensorboard", "wandb", "mlflow", "trackio"]


class Tracker(Protocol):
    """What is told of a run. Values are floats by name, such as `train/loss`; steps grow."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take up what is known of a step, 1 for the first."""

    def end(self, summary: Mapping[str, float]) -> None:
        """Take up what the finished run came to; nothing follows."""

    def close(self) -> None:
        """Let go of the run, which may be gone on with later."""


class CsvTracker:
    """A file `RUN_ID.csv` of step, name, value; it needs no package."""

    def __init__(self, folder: Path, study: str, run_id: str, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{run_id}.csv"
        fresh = not path.exists()
        # Line by line, so that what was told outlives a kill.
        self._file = path.open("a", buffering=1, newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if fresh:
            self._writer.writerow(("step", "name", "value"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row for each value."""
        self._writer.writerows((step, name, value) for name, value in values.items())

    def end(self, summary: Mapping[str, float]) -> None:
        """Append the summary, without a step."""
        self._writer.writerows(("", name, value) for name, value in summary.items())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardTracker:
    """Event files in a folder per run."""

    def __init__(self, folder: Path, study: str, run_id: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / run_id))
        self._config = {name: value for name, value in config.items() if value is not None}
        self._last = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        self._last = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, summary: Mapping[str, float]) -> None:
        """Add the summary as the run's hyperparameters and what they came to."""
        self._writer.add_hparams(self._config, dict(summary), run_name=".", global_step=self._last)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases of the same id, resumed where it is there."""

    def __init__(self, folder: Path, study: str, run_id: str, config: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=study,
            id=run_id,
            name=run_id,
            config=dict(config),
            dir=str(folder),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._run.log(dict(values), step=step)

    def end(self, summary: Mapping[str, float]) -> None:
        """Write the summary."""
        self._run.summary.update(dict(summary))

    def close(self) -> None:
        """Finish; the same id goes on later."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow, found again by its tag; local files where no server is named."""

    def __init__(self, folder: Path, study: str, run_id: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        named = os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = MlflowClient(named or f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        found = self._client.get_experiment_by_name(study)
        experiment = found.experiment_id if found else self._client.create_experiment(study)
        ours = f"tags.run_id = '{run_id}'"
        known = self._client.search_runs([experiment], filter_string=ours)
        run = known[0] if known else self._client.create_run(experiment, run_name=run_id)
        self._id = run.info.run_id
        if not known:
            params = [Param(name, str(value)) for name, value in config.items()]
            self._client.log_batch(self._id, params=params, tags=[RunTag("run_id", run_id)])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        from mlflow.entities import Metric

        metrics = [Metric(name, value, step * 1000, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def end(self, summary: Mapping[str, float]) -> None:
        """Log the summary, and mark the run as finished."""
        for name, value in summary.items():
            self._client.log_metric(self._id, name, value)
        self._client.set_terminated(self._id)

    def close(self) -> None:
        """Nothing is held open."""


class TrackioTracker(WandbTracker):
    """A run of trackio, which keeps it on this machine and is spoken to as Weights & Biases."""

    def __init__(self, folder: Path, study: str, run_id: str, config: Mapping[str, Any]) -> None:
        import trackio

        self._run: Any = trackio.init(
            project=study, name=run_id, config=dict(config), resume="allow", embed=False
        )

    def end(self, summary: Mapping[str, float]) -> None:
        """Log the summary."""
        self._run.log(dict(summary))


KINDS: dict[Kind, Callable[[Path, str, str, Mapping[str, Any]], Tracker]] = {
    "csv": CsvTracker,
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "trackio": TrackioTracker,
}
"""By name, from a folder for its files, the study, the run and its settings."""


def check_installed(kind: Kind) -> None:
    """Raise a ValueError where a tracker's package is missing, which says how to get it."""
    from importlib.util import find_spec

    if kind != "csv" and find_spec(kind) is None:
        raise ValueError(quoted(f'{kind} is not installed; pip install "isoflop[{kind}]"'))
