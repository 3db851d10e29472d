"""What `isoflop report` takes from the disk besides records: the trials and the corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.config import RunEvaluation, Study, TextSample
from isoflop.config.load import load_study
from isoflop.data import prepare
from isoflop.planning import trials
from isoflop.runs import RunStore, read_records, write_records
from isoflop.sweep.report import _train_tokens, export_routed
from isoflop.sweep.search import search_of

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "results" / "mod-variants"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(ROOT / "studies" / "mod-variants.toml")


def test_trials_are_counted_and_others_kept_apart(study: Study, tmp_path: Path) -> None:
    named = {config.run_id for trial in trials(study) for config in trial.configs}
    recorded = read_records(SHIPPED / "search.jsonl.gz")
    of_study = [record for record in recorded if record.run_id in named]
    strangers = [record for record in recorded if record.run_id not in named]
    assert len(of_study) > 2
    assert strangers
    kept = [*of_study[2:], strangers[0]]
    write_records(tmp_path / study.name / "search.jsonl", kept)
    found = search_of(study, tmp_path / "runs", tmp_path)
    assert found.declared == {variant.name: 6 for variant in study.variants}
    assert sum(found.finished.values()) == len(of_study) - 2
    assert found.further_runs == 1
    assert search_of(study.model_copy(update={"search": None}), tmp_path, tmp_path) is None


def test_the_corpus_counts_only_where_the_runs_had_it(study: Study, tmp_path: Path) -> None:
    rows = ({"text": f"Document {i}. " * (i % 9 + 1)} for i in range(120))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = study.data.model_copy(update={"corpus": str(corpus), "sequence_length": 8})
    small = study.model_copy(update={"data": data})
    record = read_records(SHIPPED / "records.jsonl.gz")[0]
    cache = tmp_path / "cache"
    assert _train_tokens(small, [record], cache) is None
    store = prepare(data, cache)
    assert _train_tokens(small, [record], cache) is None  # another corpus
    own = record.model_copy(update={"data_sha256": store.sha256})
    assert _train_tokens(small, [own], cache) == store.manifest["splits"]["train"]["tokens"] > 0
    assert _train_tokens(small, [own, record], cache) is None
    within = small.model_copy(update={"data": data.model_copy(update={"windows": "documents"})})
    lengths = np.diff(store.split("train").offsets)
    assert _train_tokens(within, [own], cache) == 8 * int(((lengths - 1) // 8).sum())


def test_what_is_known_of_the_best_routed_run_is_exported(study: Study, tmp_path: Path) -> None:
    results, root = tmp_path / "results", tmp_path / "runs"
    records = read_records(SHIPPED / "records.jsonl.gz")
    write_records(results / study.name / "records.jsonl", records)
    assert list(export_routed(study, root, results)) == []

    challenger = study.challenger_variant
    own = [r for r in records if r.config.model.depth == challenger.depth]
    good, better = sorted(own, key=lambda r: -r.evaluation().loss)[-2:]  # type: ignore[union-attr]
    for record in (good, better):
        folder = RunStore(root).folder(record.run_id)
        folder.create(record.config)
        evaluation, sample = (
            kind.model_validate_json((SHIPPED / name).read_text()).model_copy(
                update={"run_id": record.run_id}
            )
            for kind, name in ((RunEvaluation, "evaluation.json"), (TextSample, "sample.json"))
        )
        with folder.claim():
            folder.write_evaluation(evaluation)
            folder.write_sample(sample)
        written = list(export_routed(study, root, results))
        assert [path.name for path in written] == ["evaluation.json", "sample.json"]
        assert json.loads(written[0].read_text()) == evaluation.model_dump(mode="json")
        assert json.loads(written[1].read_text()) == sample.model_dump(mode="json")
    # From committed results alone it is found again, and so exported elsewhere.
    again = list(export_routed(study, tmp_path / "elsewhere", results))
    assert json.loads(again[0].read_text())["run_id"] == better.run_id
