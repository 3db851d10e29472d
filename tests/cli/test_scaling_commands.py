"""`isoflop fit` on a scaling study."""

import json

import pytest

from given import ENVIRONMENT
from isoflop.cli import main
from isoflop.config import (
    Evaluation,
    ParameterCount,
    RunRecord,
    SpanLoss,
    Study,
    canonical,
)
from isoflop.costs import parameters
from isoflop.planning import scaling_runs
from isoflop.runs import write_records

WINDOWS = (3, 2, 4, 5)
"""Of each document."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def study():
    return Study.model_validate(
        {
            "name": "scaled",
            "seeds": [0, 1, 2],
            "equivalence_margin": 0.01,
            "data": {"sequence_length": 512, "windows": "documents"},
            "recipe": {"precision": "bf16"},
            "positions": {"ranges": 2, "trailing": 64},
            "scaling": {"models": [{"blocks": 2, "width": w} for w in (24, 40, 64)]},
            "variants": [
                {"name": "Full"},
                {"name": "Block", "attention": {"kind": "block", "block_size": 64}},
            ],
        }
    )


@pytest.fixture
def study_file(study, tmp_path):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(canonical(study)))
    return path


def record(run):
    """A finished run on a line L = 0.2 C^-0.06, block attention 0.001 above it at every seed."""
    config = run.config
    compute = run.budget_flops / 8.64e19
    seeds = (0.0, 0.0004, -0.0003)[config.seed]
    loss = 0.2 * compute**-0.06 * (1 + seeds)
    if run.variant == "Block":
        loss += 0.001 + 0.2 * seeds
    spans = tuple(
        SpanLoss(
            start=start,
            stop=stop,
            loss=loss,
            document_losses=tuple(loss * (stop - start) * n for n in WINDOWS),
            document_windows=WINDOWS,
        )
        for start, stop in config.spans
    )
    return RunRecord(
        run_id=config.run_id,
        state="finished",
        config=config,
        parameters=ParameterCount(
            total=parameters(config.model).total,
            non_embedding=parameters(config.model).non_embedding,
            active=1,
        ),
        forward_flops=1.0,
        train_flops=dict.fromkeys(("6nd", "causal", "full"), run.budget_flops),
        seconds=1.0,
        evaluations=(
            Evaluation(
                split="test",
                decision="every_token",
                loss=loss,
                bits_per_byte=loss,
                tokens=512 * sum(WINDOWS),
                spans=spans,
            ),
        ),
        data_sha256="0" * 64,
        environment=ENVIRONMENT,
    )


@pytest.fixture
def records(study, tmp_path):
    path = tmp_path / "results" / study.name / "records.jsonl"
    path.parent.mkdir(parents=True)
    write_records(path, [record(run) for run in scaling_runs(study)])


def output(capsys, *arguments, code=0):
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_tables_tell_gaps_losses_and_projections(study_file, records, capsys):
    shown = output(capsys, "fit", study_file, "--details")
    for positions in ("0-255", "256-511", "0-511", "448-511"):
        assert f"Positions {positions}: Block is equivalent to Full within 0.01" in shown
    assert "nats per byte" in shown
    assert "L = a C^b" in shown
    assert "-0.06" in shown


def test_the_answer_is_of_the_whole_window_and_its_trailing_part(study_file, records, capsys):
    shown = output(capsys, "fit", study_file)
    assert shown.count("\n") <= 40
    for positions in ("0-511", "448-511"):
        assert f"Positions {positions}: Block is equivalent to Full within 0.01" in shown
    assert "Positions 0-255" not in shown
    assert (
        "Block against Full, of 2 ranges of positions: equivalent in 2; differences +0.0010 to "
        "+0.0010 nats per byte." in " ".join(shown.split())
    )
    assert shown.count("  0-511") == 2 * 3 + 2 * 2, "losses by size, projections by compute"
    assert "  448-511" not in shown


def test_json_is_the_whole_fit(study_file, records, capsys):
    found = json.loads(output(capsys, "fit", study_file, "--json", "--margin", "0.0001"))
    assert found["baseline"] == "Full"
    assert found["margin"] == 0.0001
    means = [one for one in found["gaps"] if one["non_embedding"] is None]
    assert {(one["start"], one["stop"]) for one in means} == {
        (0, 256),
        (256, 512),
        (0, 512),
        (448, 512),
    }
    assert {one["outcome"] for one in means} == {"worse"}
    for one in found["projections"]:
        if one["variant"] == "Full":
            assert one["b"]["value"] == pytest.approx(-0.06, abs=1e-6)


def test_without_records_there_is_nothing_to_fit(study_file, capsys):
    assert "no run of scaled has a record" in output(capsys, "fit", study_file, code=2)


def test_an_unknown_baseline_is_told(study_file, records, capsys):
    told = output(capsys, "fit", study_file, "--baseline", "MoD", code=2)
    assert "baseline is 'MoD'; expected one of ['Block', 'Full']" in told


def test_no_optimum_is_predicted_from_named_sizes(study_file, records, capsys):
    told = output(capsys, "predict", study_file, "--budget", "1e14", code=2)
    assert "names its sizes" in told
    assert "isoflop fit" in told


@pytest.mark.slow
def test_report_is_the_page_of_a_scaling_study(study_file, records, tmp_path, capsys):
    assert "report/index.html" in output(capsys, "report", study_file)
    folder = tmp_path / "runs" / "scaled" / "report"
    page = (folder / "index.html").read_text()
    assert "Block matches Full" in page
    for name in ("gaps-by-position", "loss-against-compute-6nd", "published-losses"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
