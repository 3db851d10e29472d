from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import made_routed
import pandas as pd
import pytest
import synthetic_scaling as synthetic
from made_reports import scaling_evidence
from test_page import Elements

from isoflop.config import BlockAttention, TopK, Variant
from isoflop.report import Evidence, LeftOut, routed_model, write_report


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
    html = page.read_text()
    assert page.stat().st_size < 5_000_000
    assert 'src="http' not in html
    figures = tmp_path / "figures"
    drawn = ["gaps-by-position", "loss-against-compute-6nd", "loss-against-compute-exact"]
    files = itertools.product([*drawn, "published-losses"], ("csv", "pdf", "png", "svg"))
    written = {path.name for path in figures.iterdir()}
    assert written == {"learning-rates.csv", "runs.csv", *map(".".join, files)}
    rates = pd.read_csv(figures / "learning-rates.csv")
    assert rates["learning_rate"].tolist() == [0.004, 0.008, 0.016] * 2
    assert 'href="figures/learning-rates.csv"' in html
    raw = (figures / "runs.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in html
    runs = pd.read_csv(figures / "runs.csv")
    assert len(runs) == 12
    assert runs["loss_0_2048"].tolist() == pytest.approx(runs["loss"].tolist(), abs=1e-5)
    text = Elements(html).words
    for said in (
        "Compute 6ND (as published) exact FLOPs",
        "Published, not trained here",
        "Published coefficients (arXiv 2502.13189) beside ours",
        "by least squares on log loss over log compute",
        "Learning rates tried at one size",
        "Parameters without embeddings.",
        "tested from both sides (TOST)",
        "None: every run of the study has finished.",
    ):
        assert said in text, said


def test_names_are_text_whatever_they_hold(tmp_path: Path, without_pictures):
    hostile = "</script><img src=x onerror=alert(1)>\x1b{{ 7*7 }}"
    variants = (
        Variant(name="=Full"),
        Variant(name=hostile, attention=BlockAttention(block_size=64, top_k=3)),
    )
    study = synthetic.study(variants=variants, seeds=(0,), sizes=synthetic.SIZES[:3])
    records, names = synthetic.joined(synthetic.runs(study, points=8))
    html = write_report(study, Evidence(records, names), tmp_path).read_text()
    assert "<img src=x" not in html
    assert "\x1b" not in html
    assert "</script><img src=x onerror=alert(1)>\\x1b{{ 7*7 }}" in Elements(html).words
    table = pd.read_csv(tmp_path / "figures" / "loss-against-compute-6nd.csv")
    assert "'=Full" in set(table["variant"])


@pytest.mark.slow
def test_a_routed_model_of_a_scaling_study_is_looked_into(tmp_path: Path, without_vega):
    name = "MoD \x1b[31m12.5%"
    variants = (Variant(name="Dense"), Variant(name=name, depth=TopK(capacity=0.125)))
    study = synthetic.study(variants=variants, seeds=(0, 1), sizes=synthetic.SIZES[:3])
    records, names = synthetic.joined(synthetic.runs(study, points=20))
    routed = [one for one in records if one.config.model.routed_blocks]
    best = min(routed, key=lambda one: one.evaluation().loss)

    def html(evaluations, samples):
        model = routed_model(study, records, names, evaluations, samples)
        known = Evidence(records, names, routed=model)
        return write_report(study, known, tmp_path).read_text()

    page = html({}, {})
    assert 'id="routing-decisions"' not in page
    folder = f"runs/moba-scaling/runs/{best.run_id}"
    assert f"isoflop eval {folder} and isoflop sample {folder}" in Elements(page).words

    page = html(
        {best.run_id: made_routed.evaluation(best)}, {best.run_id: made_routed.sample(best)}
    )
    words = Elements(page).words
    assert "Inside a routed model" in words
    assert f"MoD \\x1b[31m12.5%, {best.config.model.blocks} blocks of width" in words
    for figure in ("routing-decisions", "router-weights", "decision-losses", "generated-text"):
        assert f'id="{figure}"' in page
    assert (tmp_path / "figures" / "router-weights.csv").exists()
    assert "\x1b" not in page
