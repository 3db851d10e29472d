"""A registered prediction cannot be changed quietly, and its miss is shown."""

import json
from pathlib import Path

import pytest
import synthetic_study as synthetic
from made_reports import analysed, html_of
from test_page import Elements

from isoflop.config import Study
from isoflop.fit import predict
from isoflop.report.analysis import Analysis
from isoflop.report.registration import read_registrations, register
from isoflop.report.rows import prediction_rows


@pytest.fixture(scope="module")
def asked() -> Study:
    return synthetic.study(budgets=(5e12, 2e13, 8e13), variants=synthetic.VARIANTS[:2])


@pytest.fixture(scope="module")
def all_budgets(asked: Study) -> Analysis:
    return analysed(asked, synthetic.runs(asked))


@pytest.fixture(scope="module")
def two_budgets(asked: Study) -> Analysis:
    return analysed(asked, [one for one in synthetic.runs(asked) if one[1] < 8e13])


def test_the_miss_is_shown_once_the_budget_is_trained(
    tmp_path: Path, asked: Study, two_budgets: Analysis, all_budgets: Analysis
) -> None:
    made = predict(two_budgets.table, 8e13, resamples=50)
    written = register(tmp_path / "8e13.json", asked.name, two_budgets.table, made)
    assert written.runs == len(two_budgets.table)
    (found,) = read_registrations(tmp_path)
    assert found == written
    before = prediction_rows(two_budgets, [found])
    assert {row["measured"] for row in before} == {"not trained yet"}
    after = prediction_rows(all_budgets, [found])
    assert len(after) == 2 * 3
    for row in after:
        assert " at " in str(row["measured"])
        assert abs(float(str(row["error"]))) < 0.05
    records = list(all_budgets.records.values())
    text = Elements(html_of(all_budgets, records, registered=[found])).words
    runs = f"{len(two_budgets.table)} finished runs"
    assert f"predicted from {runs} of {asked.name}, SHA-256 {found.sha256}" in text
    assert f"{after[0]['measured']} {after[0]['error']}" in text


def test_a_changed_prediction_is_refused(
    tmp_path: Path, asked: Study, two_budgets: Analysis
) -> None:
    path = tmp_path / "8e13.json"
    register(path, asked.name, two_budgets.table, predict(two_budgets.table, 8e13, resamples=20))
    content = json.loads(path.read_text())
    content["predictions"][0]["loss"]["value"] -= 0.01
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was registered"):
        read_registrations(tmp_path)


def test_what_is_trained_or_registered_already_is_not_registered(
    tmp_path: Path, asked: Study, two_budgets: Analysis, all_budgets: Analysis
) -> None:
    made = predict(two_budgets.table, 8e13, resamples=20)
    with pytest.raises(ValueError, match="has been trained already"):
        register(tmp_path / "a.json", asked.name, all_budgets.table, made)
    register(tmp_path / "a.json", asked.name, two_budgets.table, made)
    with pytest.raises(ValueError, match="is not replaced"):
        register(tmp_path / "a.json", asked.name, two_budgets.table, made)


def test_any_other_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="no registered prediction"):
        read_registrations(tmp_path)
