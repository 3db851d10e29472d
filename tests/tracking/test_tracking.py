"""Trackers are told of runs as they train, offline, and go on with a run that goes on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from given import record_of
from isoflop.config import RunConfig
from isoflop.runs import RunFolder
from isoflop.tracking import Follower, tracking
from isoflop.tracking.trackers import KINDS, CsvTracker

CONFIG = RunConfig.model_validate(
    {
        "model": {
            "vocabulary": 256,
            "width": 8,
            "blocks": 1,
            "heads": 1,
            "head_width": 8,
            "hidden": 8,
        },
        "steps": 6,
        "sequences_per_step": 1,
    }
)
LOSSES = [5.0, 4.0, 3.5, 3.0, 2.5, 2.0]


def begun(root: Path, steps: int, *, finished: bool = False) -> RunFolder:
    """Return a run that has made some steps, as training writes them."""
    folder = RunFolder(root / "runs" / CONFIG.run_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "config.json").write_text(json.dumps(CONFIG.model_dump(mode="json")))
    rows = [
        {"step": step, "loss": LOSSES[step - 1], "learning_rate": 0.1 / step, "tokens": 256 * step}
        for step in range(1, steps + 1)
    ]
    torn = "" if finished else '{"step": 9, "lo'
    text = "".join(json.dumps(row) + "\n" for row in rows) + torn
    (folder.path / "metrics.jsonl").write_text(text)
    if finished:
        record = record_of(CONFIG, 1.9)
        (folder.path / "record.json").write_text(json.dumps(record.model_dump(mode="json")))
    return folder


def of_csv(root: Path) -> tuple[dict[int, float], dict[str, float]]:
    with (root / "tracking" / f"{CONFIG.run_id}.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["name"] for row in rows if row["step"] and row["name"] == "train/loss"]
    assert len(names) == len(LOSSES)
    told = {int(r["step"]): float(r["value"]) for r in rows if r["name"] == "train/loss"}
    return told, {row["name"]: float(row["value"]) for row in rows if not row["step"]}


def of_tensorboard(root: Path) -> tuple[dict[int, float], dict[str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(root / "tracking" / CONFIG.run_id))
    found.Reload()
    told = {one.step: one.value for one in found.Scalars("train/loss")}
    return told, {"test/every_token/loss": found.Scalars("test/every_token/loss")[-1].value}


def of_mlflow(root: Path) -> tuple[dict[int, float], dict[str, float]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'tracking' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.width"] == "8"
    told = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "train/loss")}
    return told, dict(run.data.metrics)


def of_trackio(root: Path) -> tuple[dict[int, float], dict[str, float]]:
    import trackio

    run = next(one for one in trackio.Api().runs("study") if one.name == CONFIG.run_id)
    rows = run.history() if hasattr(run, "history") else trackio_rows()
    told = {row["step"]: row["train/loss"] for row in rows if row.get("train/loss") is not None}
    (summary,) = [row for row in rows if row.get("parameters") is not None]
    return told, summary


def trackio_rows() -> list[dict[str, Any]]:
    from trackio.sqlite_storage import SQLiteStorage

    rows: list[dict[str, Any]] = SQLiteStorage.get_logs("study", CONFIG.run_id)
    return rows


def logged(data: bytes) -> Iterator[bytes]:
    """Yield the records of an offline file: a LevelDB log behind seven bytes of its own."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def of_wandb(root: Path) -> tuple[dict[int, float], dict[str, float]]:
    files = sorted((root / "tracking").rglob("*.wandb"))
    assert files
    told: dict[int, float] = {}
    summary: dict[str, float] = {}
    from wandb.proto import wandb_internal_pb2

    for path in files:
        for data in logged(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {
                ".".join(one.nested_key) or one.key: json.loads(one.value_json)
                for one in (*record.history.item, *record.summary.update)
            }
            if record.HasField("history") and "train/loss" in items:
                told[int(items["_step"])] = items["train/loss"]
            if record.HasField("summary"):
                summary |= items
    return told, summary


READ = {
    "csv": of_csv,
    "tensorboard": of_tensorboard,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
    "wandb": of_wandb,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", READ)
def test_a_tracker_is_told_each_step_once_and_goes_on_with_a_run(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    # Which trackio reads when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if kind != "csv":
        pytest.importorskip(kind, reason=f"needs the extra {kind}")
    begun(tmp_path, 3)
    with tracking(tmp_path, kind, "study"):
        pass
    # Another process goes on from step 2, and so writes step 3 a second time.
    begun(tmp_path, 2)
    follower = Follower(tmp_path, kind, "study")
    follower.look()
    begun(tmp_path, 4)
    follower.look()
    if kind == "csv":  # of which nothing waits for the end
        assert "4,train/loss,3.0\n" in (tmp_path / f"tracking/{CONFIG.run_id}.csv").read_text()
    begun(tmp_path, 6, finished=True)
    follower.look()
    follower.close()
    told, summary = READ[kind](tmp_path)
    assert [told[step] for step in range(1, 7)] == pytest.approx(LOSSES)
    assert summary["test/every_token/loss"] == pytest.approx(1.9)
    assert Follower(tmp_path, kind, "study")._told == {CONFIG.run_id: -1}


def test_a_tracker_that_fails_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(CsvTracker):
        def log(self, step: int, values: Mapping[str, float]) -> None:
            self.close()
            raise OSError("the server is gone")

    monkeypatch.setitem(KINDS, "csv", Broken)
    begun(tmp_path, 3)
    done = False
    told = pytest.warns(UserWarning, match="csv is told no more: OSError: the server is gone")
    with told, tracking(tmp_path, "csv", "study"):
        done = True
    assert done


def test_a_missing_package_is_said_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'wandb is not installed; pip install "isoflop\[wandb\]"'):
        Follower(tmp_path, "wandb", "study")
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    Follower(tmp_path, "csv", "study").look()
