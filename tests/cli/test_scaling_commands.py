"""`isoflop fit` on a scaling study."""

import json

import pytest

from given import record_of
from isoflop.config import SpanLoss, Study, canonical
from isoflop.planning import scaling_runs
from isoflop.runs import write_records

WINDOWS = (3, 2, 4, 5)
"""Of each document."""


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study.model_validate(
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
    path = tmp_path / "study.json"
    path.write_text(json.dumps(canonical(study)))
    return path


@pytest.fixture
def records(study_file):
    """Finished runs on a line L = 0.2 C^-0.06, block attention 0.001 above it at every seed."""
    made = []
    for run in scaling_runs(Study.model_validate_json(study_file.read_text())):
        luck = (0.0, 0.0004, -0.0003)[run.config.seed]
        loss = 0.2 * (run.budget_flops / 8.64e19) ** -0.06 * (1 + luck)
        if run.variant == "Block":
            loss += 0.001 + 0.2 * luck
        spans = tuple(
            SpanLoss(
                start=start,
                stop=stop,
                loss=loss,
                document_losses=tuple(loss * (stop - start) * n for n in WINDOWS),
                document_windows=WINDOWS,
            )
            for start, stop in run.config.spans
        )
        one = record_of(run.config, loss)
        test = one.evaluations[-1].model_copy(update={"spans": spans, "tokens": 512 * sum(WINDOWS)})
        flops = dict.fromkeys(("6nd", "causal", "full"), run.budget_flops)
        made.append(one.model_copy(update={"evaluations": (test,), "train_flops": flops}))
    folder = study_file.parent / "results" / "scaled"
    folder.mkdir(parents=True)
    write_records(folder / "records.jsonl", made)


def test_tables_tell_gaps_losses_and_projections(study_file, records, call):
    shown = call("fit", study_file, "--details")
    for positions in ("0-255", "256-511", "0-511", "448-511"):
        assert f"Positions {positions}: Block is equivalent to Full within 0.01" in shown
    for text in ("nats per byte", "L = a C^b", "-0.06"):
        assert text in shown
    # Here a nat is made up to be a bit.
    assert call("fit", study_file, "--details", "--per", "byte") == shown.replace("nats", "bits")


def test_json_is_the_whole_fit(study_file, records, told):
    found = told("fit", study_file, "--margin", "0.0001")
    assert (found["baseline"], found["margin"]) == ("Full", 0.0001)
    means = [one for one in found["gaps"] if one["non_embedding"] is None]
    spans = {(one["start"], one["stop"]) for one in means}
    assert spans == {(0, 256), (256, 512), (0, 512), (448, 512)}
    assert {one["outcome"] for one in means} == {"worse"}
    for one in found["projections"]:
        if one["variant"] == "Full":
            assert one["b"]["value"] == pytest.approx(-0.06, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("fit", "--baseline", "MoD"), "baseline is 'MoD'; expected one of ['Block', 'Full']"),
        (("fit", "--where", "seed=0"), "--where is of a table, but"),
        (("fit", "--columns", "loss=x"), "--columns is of a table, but"),
        (("fit", "--cluster", "seed"), "--cluster is of surfaces, and study scaled has none"),
        (("predict", "--budget", "1e14"), "names its sizes, so that no optimum at a budget"),
    ],
)
def test_what_cannot_be_asked_is_told(study_file, records, arguments, told, call):
    command, *options = arguments
    assert told in call(command, study_file, *options, code=2)


def test_without_records_there_is_nothing_to_fit(study_file, call):
    assert "no run of scaled has a record" in call("fit", study_file, code=2)
