"""A full disk in a checkpoint, metrics, a record, a figure, and the data.

Injected: a tmpfs of a few hundred kilobytes, filled up. Expected: one clear error with the path and
the free bytes, what was there before stays as it was, no temporary file is left; with room again
the same command goes on to the same result.
"""

from __future__ import annotations

import errno
import gc
import hashlib
from collections.abc import Callable
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from one_tiny_run import Tiny
from small_disk import fill, on_small_disk

from isoflop import checkpoint, storage
from isoflop.cli.main import main
from isoflop.data import prepare
from isoflop.report.figure import Figure
from isoflop.report.render import write_figure
from isoflop.runs import RunFolder, write_records
from isoflop.storage import StorageError

SIZE_BYTES = 600_000


def content(disk: Path) -> dict[str, str]:
    """What is on the disk besides the filler and locks, by relative path."""
    return {
        str(path.relative_to(disk)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(disk.rglob("*"))
        if path.is_file()
        and path.name not in ("filler", "lock")
        and not path.name.startswith("claim-")
    }


def refuse(disk: Path, name: str, work: Callable[[], object], leaving_bytes: int = 0) -> None:
    """Hold that `work` fails on the full disk with one clear error, and changes nothing."""
    before = content(disk)
    filler = fill(disk, leaving_bytes)
    with pytest.raises(StorageError, match=rf"{name}: No space left on device \(\d+ bytes") as told:
        work()
    assert "free some space, then run the same command again" in str(told.value)
    assert str(disk) in str(told.value)
    assert "\n" not in str(told.value)
    assert told.value.errno == errno.ENOSPC
    filler.unlink()
    del told
    gc.collect()  # Its frames keep files mapped that are gone from the folder, and their room.
    assert content(disk) == before
    assert not list(disk.rglob(f"{storage.TEMPORARY}*"))


def test_row_04_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    tiny, undisturbed = Tiny.of(tmp_path), RunFolder(tmp_path / "undisturbed")
    config = tiny.config
    record = tiny.train(undisturbed)
    saved = checkpoint.latest(undisturbed.checkpoints)
    assert saved is not None

    def work(disk: Path) -> None:
        run = RunFolder(disk / "run")
        run.create(config)
        checkpoint.save(run.checkpoints, 1, saved.tensors, saved.values)
        arguments = (run.checkpoints, 2, saved.tensors, saved.values)
        # Full at the tensors, which Rust writes, and later, at one of the small files.
        needed = sum(tensor.nbytes for tensor in saved.tensors.values())
        for leaving in (0, needed // 2, needed + 8192):
            refuse(disk, "step-00000002", lambda: checkpoint.save(*arguments), leaving)
        with run.claim():
            refuse(disk, "record.json", lambda: run.write_record(record))
            run.write_record(record)
            refuse(disk, "records.jsonl", lambda: write_records(disk / "records.jsonl", [record]))
            with run.open_metrics(0) as log:
                log.append({"step": 1})
                log.sync()
                row = {"step": 2, "routing": list(range(2000))}
                refuse(disk, "metrics.jsonl", lambda: log.append(row))
                log.append({"step": 2})
        assert [row["step"] for row in run.read_metrics()[0]] == [1, 2]
        data = prepare(config.data, tiny.cache)
        files = list(data.folder.iterdir())
        # One more page of room each time, so that every file is the one that does not fit.
        needed = sum(-(-file.stat().st_size // 4096) for file in files)
        for pages in range(needed):
            leaving = 4096 * pages
            refuse(disk, "tokens", lambda: prepare(config.data, disk / "cache"), leaving)
        assert prepare(config.data, disk / "cache").sha256 == record.data_sha256

    on_small_disk(tmp_path / "a", SIZE_BYTES, work)


def test_a_run_on_a_disk_that_fills_up_goes_on_once_there_is_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny, run_file = Tiny.of(tmp_path), tmp_path / "run.json"
    tiny.train(tmp_path / "undisturbed")
    run_file.write_text(tiny.config.model_dump_json())

    def work(disk: Path) -> None:
        run = RunFolder(disk / "runs" / tiny.config.run_id)
        filler = []

        def fill_at_three(progress: object) -> None:
            if getattr(progress, "step", 0) == 3:
                filler.append(fill(disk))

        with pytest.raises(StorageError, match="No space left"):
            tiny.train(run, 0.0, watch=fill_at_three)
        assert run.state() == "interrupted"
        saved = checkpoint.latest(run.checkpoints)
        assert saved is not None
        assert saved.step == 2
        command = ["train", str(run_file), "--out", str(disk), "--cache", str(tiny.cache)]
        assert main([*command, "--threads", "1"]) == 1
        filler[0].unlink()
        assert main([*command, "--threads", "1"]) == 0
        tiny.assert_undisturbed(run)

    on_small_disk(tmp_path / "a", SIZE_BYTES, work)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("isoflop:")]
    assert len(told) == 1
    assert "No space left on device (" in told[0]
    assert "bytes free there); free some space, then run the same command again" in told[0]


def test_a_figure_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"size": np.arange(1.0, 6.0), "loss": [3.0, 2.5, 2.25, 2.5, 3.0]})
    chart = alt.layer(alt.Chart().mark_line().encode(x="size:Q", y="loss:Q"))
    figure = Figure("valley", "A valley", "How to read it.", chart, table, 200)
    # Its threads do not live in the forked child, so what it draws is drawn before.
    drawn = write_figure(figure, tmp_path / "figures")
    for function, ending in (("svg_to_png", "png"), ("svg_to_pdf", "pdf")):
        data = (tmp_path / "figures" / f"valley.{ending}").read_bytes()
        monkeypatch.setattr(vl_convert, function, lambda *_, data=data, **__: data)
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: drawn)

    def work(disk: Path) -> None:
        out = disk / "figures"
        write_figure(figure, out)
        other = Figure("valley", "", "", chart, table * 2, 200)
        before = content(disk)
        filler = fill(disk)
        with pytest.raises(StorageError, match="No space left"):
            write_figure(other, out)
        filler.unlink()
        assert content(disk) == before

    on_small_disk(tmp_path / "a", SIZE_BYTES, work)
