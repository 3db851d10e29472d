"""Row 16. Fault: the data changes under a study: one byte, the size and the time as before.

Injected: a byte of the corpus between two runs of the command, prepared data still in the cache.
Expected: refused in one line with both hashes and how to start afresh; nothing is trained.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from isoflop.cli import main
from isoflop.data import prepare
from isoflop.planning import next_runs
from isoflop.runs import RunStore
from sweep_studies import instant, tiny, write_corpus


def test_row_16_a_study_on_other_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "text.txt")
    study = tiny(corpus)
    (tmp_path / "study.json").write_text(study.model_dump_json())
    monkeypatch.chdir(tmp_path)
    store = RunStore(tmp_path / "runs" / "tiny")
    config = next_runs(study, [])[0].config
    instant(config, store.folder(config.run_id), cache=tmp_path / "cache")
    before = prepare(study.data, tmp_path / "cache").sha256

    times = corpus.stat()
    text = corpus.read_bytes()
    place = len(text) // 2
    corpus.write_bytes(text[:place] + b"z" + text[place + 1 :])
    os.utime(corpus, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert corpus.stat().st_size == times.st_size
    now = prepare(study.data, tmp_path / "cache").sha256
    assert now != before

    for arguments in (
        ["run", "study.json"],
        ["train", "study.json", config.run_id, "--out", str(tmp_path / "begun")],
    ):
        if arguments[0] == "train":
            begun = RunStore(tmp_path / "begun").folder(config.run_id)
            record = store.folder(config.run_id).record()
            assert record is not None
            with begun.claim():
                begun.create(config)
                begun.pin(record.environment, before)
        assert main(arguments) == 2
        (line,) = [one for one in capsys.readouterr().err.splitlines() if "SHA-256" in one]
        assert re.search(rf"SHA-256 {before}.* {now}; restore the data, or .*start afresh", line)
    assert [folder.path.name for folder in store.folders()] == [config.run_id]
