"""A study's folder with everything that commands read: runs, records, measures, a prediction."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hostile_commands import STUDY, Sandbox

from given import ENVIRONMENT, record_of
from isoflop import storage
from isoflop.config import CurvePoint, RunConfig, RunRecord, Study
from isoflop.config.load import load_study
from isoflop.costs import parameters
from isoflop.planning import achieved_flops, next_runs
from isoflop.runs import RunStore, write_records
from report import made_routed

RECORDED = {
    **STUDY,
    "budgets_flops": [1.5e11, 4e11],
    "matched_shapes": False,
    "grid": {"sizes": 4, "margin": 1, "centre_parameters": 60e3, "added_at_most": 0},
    "shape": {"minimum_blocks": 4, "width_per_block": 4, "head_width": 8},
    "search": {"learning_rates": [4e-3, 8e-3], "width_per_block": [16.0]},
}


def outcome(config: RunConfig, *, finished: bool = True) -> RunRecord:
    """Return the outcome of a run whose loss follows from its size alone."""
    size = parameters(config.model).total
    loss = 2.0 + 0.1 * math.log(size / 60e3) ** 2 + 0.01 * (config.model.depth.kind != "top_k")
    made = record_of(config, loss)
    documents = {
        "bits_per_byte": loss / math.log(2),
        "tokens": 1000,
        "document_losses": (loss * 500, loss * 500),
        "document_tokens": (500, 500),
    }
    evaluations = [one.model_copy(update=documents) for one in made.evaluations]
    changes = {
        "train_flops": {
            name: achieved_flops(config.model_copy(update={"convention": name}))
            for name in ("causal", "full", "6nd")
        },
        "curve": [CurvePoint(step=step, loss=loss + 1 / step) for step in (1, 2, 5, 10)],
    }
    if finished:
        return record_of(config, loss, evaluations=evaluations, **changes)
    ended = {"state": "diverged", "reason": "loss nan", "train_loss": None, "evaluations": []}
    return record_of(config, **ended, **changes)


def fill(box: Sandbox) -> Study:
    """Write the study's runs, half of them as committed records, and what is known of them."""
    study = load_study(box.home / box.study(RECORDED))
    runs = next_runs(study, [])
    root, results = box.home / "runs" / study.name, box.home / "results" / study.name
    records = [outcome(run.config) for run in runs[:-2]]
    write_records(results / "records.jsonl", records[::2])
    storage.write_json(root / "study.json", study.model_dump(mode="json"))
    for record in records[1::2]:
        _run(root, record.config, record)
    _run(root, runs[-1].config, outcome(runs[-1].config, finished=False))
    _run(root, runs[-2].config, None)
    routed = next(r for r in records[1::2] if r.config.model.depth.kind == "top_k")
    folder = RunStore(root).folder(routed.run_id)
    with folder.claim():
        folder.write_evaluation(made_routed.evaluation(routed))
        folder.write_sample(made_routed.sample(routed))
    (root / "bench.json").write_text(json.dumps({"rows": [_speed(one) for one in records]}))
    return study


def _run(root: Path, config: RunConfig, record: RunRecord | None) -> None:
    folder = RunStore(root).folder(config.run_id)
    folder.create(config)
    with folder.claim():
        folder.pin(ENVIRONMENT, "0" * 64)
        with folder.open_metrics(0) as metrics:
            for step in (1, 2, 3):
                metrics.append({"step": step, "loss": 5.0 / step, "seconds": 0.1})
        if record is not None:
            folder.write_record(record)


def _speed(record: RunRecord) -> dict[str, object]:
    return {
        "variant": "Baseline" if record.config.model.depth.kind == "every_token" else "MoD",
        "parameters": record.parameters.total,
        "flops_per_step": 1e9,
        "steps_per_second": 2.0,
    }
