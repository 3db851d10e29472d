from __future__ import annotations

import hashlib
import io

import pandas as pd
import pytest
import synthetic_study as synthetic
from made_reports import bench_rows, evidence_of
from test_sections import NAMES

from isoflop.config import EveryToken, TopK, Variant
from isoflop.report import Evidence, write_report


def test_a_report_is_one_page_with_its_figures(tmp_path):
    routed = '=MoD\x1b</script>&"'
    variants = (
        Variant(name="Baseline", depth=EveryToken()),
        Variant(name=routed, depth=TopK(capacity=0.125)),
    )
    study = synthetic.study(seeds=(0, 1), variants=variants)
    runs = synthetic.runs(study, widths=(32, 64, 80, 112, 160))
    page = write_report(study, evidence_of(runs, speeds=bench_rows(runs)), tmp_path / "report")
    assert page == tmp_path / "report" / "index.html"
    html = page.read_text()
    assert len(html) < 5_000_000
    assert "window.vegaEmbed" in html
    assert 'src="http' not in html

    written = sorted(path.name for path in (page.parent / "figures").iterdir())
    of_two = [name for name in NAMES if not name.startswith("league-")]
    files = [f"{n}.{e}" for n in of_two for e in ("csv", "pdf", "png", "svg")]
    assert written == sorted([*files, "claims.csv", "runs.csv"])
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<svg"}
    for name in of_two:
        for ending, start in starts.items():
            data = (page.parent / "figures" / f"{name}.{ending}").read_bytes()
            assert data.startswith(start)
            assert b"\x1b</" not in data
        table = pd.read_csv(page.parent / "figures" / f"{name}.csv")
        assert len(table) > 0
        assert not table["variant"].str.startswith("=").any()
    # What is drawn: every run and both minima, a bar per model, a line per model and seed.
    for name, mark, expected in (
        ("loss-against-parameters", "point", len(runs) + 2),
        ("flops-per-step-5e12", "bar", 4),
        ("training-flops-5e12", "line mark", 4 * len(study.seeds)),
    ):
        svg = (page.parent / "figures" / f"{name}.svg").read_text()
        assert svg.count(f'aria-roledescription="{mark}"') == expected, name

    raw = (page.parent / "figures" / "runs.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in html
    assert len(pd.read_csv(io.BytesIO(raw))) == len(runs)
    curves = pd.read_csv(page.parent / "figures" / "loss-against-parameters.csv")
    assert sorted(curves[curves["row"] == "run"]["loss"]) == pytest.approx(
        sorted(record.evaluation().loss for *_, record in runs)
    )


def test_a_run_of_no_variant_is_refused(tmp_path):
    study = synthetic.study()
    record = synthetic.record(study.variants[0], 5e12, 64)
    with pytest.raises(ValueError, match="a run belongs to variant 'other'; expected one of"):
        write_report(study, Evidence([record], {record.run_id: "other"}), tmp_path)
    assert not list(tmp_path.iterdir())
