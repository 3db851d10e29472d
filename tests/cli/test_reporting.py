"""What `isoflop report` takes from the disk besides records: the trials and the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from isoflop.cli import reporting
from isoflop.cli.reporting import _train_tokens, report_study
from isoflop.cli.searching import search_of
from isoflop.config import BlockAttention, FullAttention, ScaledModel, Scaling, Study, Variant
from isoflop.config.load import load_study
from isoflop.data import prepare
from isoflop.planning import trials
from isoflop.planning.assignment import Assignment
from isoflop.runs import read_records, write_records

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "results" / "mod-variants"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(ROOT / "studies" / "mod-variants.toml")


def test_trials_are_counted_and_others_kept_apart(study: Study, tmp_path: Path) -> None:
    named = {config.run_id for trial in trials(study) for config in trial.configs}
    recorded = read_records(SHIPPED / "search.jsonl")
    of_study = [record for record in recorded if record.run_id in named]
    strangers = [record for record in recorded if record.run_id not in named]
    assert len(of_study) > 2
    assert strangers
    kept = [*of_study[2:], strangers[0]]
    write_records(tmp_path / study.name / "search.jsonl", kept)
    found = search_of(study, tmp_path / "runs", tmp_path)
    assert found is not None
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
    record = read_records(SHIPPED / "records.jsonl")[0]
    cache = tmp_path / "cache"
    assert _train_tokens(small, [record], cache) is None
    store = prepare(data, cache)
    assert _train_tokens(small, [record], cache) is None  # another corpus
    own = record.model_copy(update={"data_sha256": store.sha256})
    assert _train_tokens(small, [own], cache) == store.manifest["splits"]["train"]["tokens"] > 0
    assert _train_tokens(small, [own, record], cache) is None


@pytest.mark.parametrize("attention", [FullAttention(), BlockAttention(block_size=64)])
def test_a_scaling_study_gets_its_own_report(attention, monkeypatch, tmp_path: Path) -> None:
    one, other = read_records(SHIPPED / "records.jsonl")[:2]
    sizes = (ScaledModel(blocks=2, width=32), ScaledModel(blocks=3, width=48))
    study = Study(
        name="sizes",
        scaling=Scaling(models=sizes),
        variants=(Variant(name="Full"), Variant(name="Other", attention=attention)),
    )
    runs = Assignment(
        variant_of={one.run_id: "Full"},
        checks={other.run_id: "Full"},
        off_ladder=frozenset(),
        foreign=(),
    )
    ledger = SimpleNamespace(records=[one, other])
    monkeypatch.setattr(reporting, "Ledger", lambda *_: ledger)
    monkeypatch.setattr(reporting, "assign", lambda *_: runs)
    monkeypatch.setattr(reporting, "status", lambda *_: SimpleNamespace(rows=()))
    asked = {}

    def write(study, records, variant_of, out, **options):
        asked.update(options, records=records, variant_of=variant_of)
        return out / "index.html"

    monkeypatch.setattr(reporting, "write_scaling_report", write)
    page = report_study(study, tmp_path, tmp_path, tmp_path, "isoflop report sizes.toml")
    assert page == tmp_path / "report" / "index.html"
    assert asked["records"] == [one, other]
    assert (asked["variant_of"], asked["checks"]) == (runs.variant_of, runs.checks)
    # The published curves are of block attention, and shown beside nothing else.
    assert (asked["published"] is not None) == isinstance(attention, BlockAttention)
