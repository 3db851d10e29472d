"""A small study on disk, with made-up records, for the commands to be tried on."""

import json

import pytest

from given import ENVIRONMENT
from isoflop.config import Evaluation, RunRecord, decisions
from isoflop.config.load import load_study
from isoflop.costs import forward_flops, parameters
from isoflop.planning import achieved_flops, next_runs
from isoflop.runs import write_records

HOSTILE = "MoD [bold]\x1b[31m"
STUDY = {
    "name": "small",
    "budgets_flops": [1.5e11],
    "tokens_per_step": 1024,
    "data": {"corpus": "text.txt"},
    "grid": {"sizes": 3, "margin": 1, "centre_parameters": 60e3},
    "variants": [
        {"name": "Baseline"},
        {"name": HOSTILE, "depth": {"kind": "top_k", "capacity": 0.5, "every": 2}},
    ],
}


def record_of(config, loss, state="finished", reason=None):
    """Return a record as training would leave it."""
    decision = decisions(config.model.depth)[0]
    evaluations = tuple(
        Evaluation(
            split=split, decision=decision, loss=loss, bits_per_byte=loss * 1.44, tokens=1000
        )
        for split in ("validation", "test")
    )
    return RunRecord(
        run_id=config.run_id,
        state=state,
        reason=reason,
        config=config,
        parameters=parameters(config.model),
        forward_flops=forward_flops(config.model, config.data.sequence_length).per_token,
        train_flops={config.convention: achieved_flops(config)},
        seconds=1.0,
        evaluations=evaluations if state == "finished" else (),
        data_sha256="0" * 64,
        environment=ENVIRONMENT,
    )


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    """A study file in a folder of its own, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.json"
    path.write_text(json.dumps(STUDY))
    return path


@pytest.fixture
def study(study_file):
    return load_study(study_file)


@pytest.fixture
def committed(study, tmp_path):
    """Records of the study's first runs under `results`: one of them diverged."""
    runs = next_runs(study, [])
    records = [record_of(run.config, 2.0 - 0.1 * i) for i, run in enumerate(runs[:-1])]
    records.append(
        record_of(runs[-1].config, 0.0, state="diverged", reason="loss nan at step 3 \x1b[31m")
    )
    write_records(tmp_path / "results" / "small" / "records.jsonl", records)
    return records


@pytest.fixture
def make_record():
    """The function that makes up a record of a run."""
    return record_of
