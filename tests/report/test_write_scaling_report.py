from __future__ import annotations

import hashlib
import itertools

import pandas as pd
import pytest
import synthetic_scaling as synthetic
from made_reports import scaling_evidence
from test_page import Elements

from isoflop.report import Evidence, LeftOut, write_report


def test_nothing_finished_makes_a_page_that_says_so(scaling_study, tmp_path, without_pictures):
    study = scaling_study
    failed = synthetic.record(study, study.variants[0], 4, 64).model_copy(
        update={"state": "failed", "reason": "out of memory", "evaluations": (), "curve": ()}
    )
    waiting = LeftOut("Block attention", float("nan"), "213K", 0, "pending", "not started")
    names = {failed.run_id: "Full attention"}
    page = write_report(study, Evidence([failed], names, missing=[waiting]), tmp_path)
    text = Elements(page.read_text()).words
    assert "No run of Full attention has finished, so there is nothing to compare." in text
    assert "4 blocks of width 64 0 failed out of memory" in text
    assert "213K 0 pending not started" in text


def test_a_report_is_one_page_with_its_figures(tmp_path, without_pictures):
    study = synthetic.study(seeds=(0, 1), sizes=synthetic.SIZES[:3])
    page = write_report(study, scaling_evidence(study, points=20), tmp_path)
    figures = tmp_path / "figures"
    drawn = ["gaps-by-position", "loss-against-compute-6nd", "loss-against-compute-exact"]
    files = itertools.product([*drawn, "published-losses"], ("csv", "pdf", "png", "svg"))
    written = {path.name for path in figures.iterdir()}
    assert written == {"learning-rates.csv", "runs.csv", *map(".".join, files)}
    raw = (figures / "runs.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in page.read_text()
    runs = pd.read_csv(figures / "runs.csv")
    assert len(runs) == 12
    assert runs["loss_0_2048"].tolist() == pytest.approx(runs["loss"].tolist(), abs=1e-5)
