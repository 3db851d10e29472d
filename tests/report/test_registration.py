"""A registered prediction cannot be changed quietly, and its miss is shown."""

import json
from pathlib import Path

import pytest
from made_reports import html_of, table_of, told
from test_page import Elements

from isoflop.fit.predictions import Prediction
from isoflop.report.analysis import Analysis
from isoflop.report.registration import read_registrations, register
from isoflop.report.sections.predictions import predictions

Predictions = tuple[Prediction, ...]


def test_the_miss_is_shown_once_the_budget_is_trained(
    tmp_path: Path, predicted: Predictions, two_budgets: Analysis, all_budgets: Analysis
) -> None:
    name = all_budgets.study.name
    written = register(tmp_path / "8e13.json", name, two_budgets.table, predicted)
    assert written.runs == len(two_budgets.table)
    (found,) = read_registrations(tmp_path)
    assert found == written
    before, after = (told(one, registered=[found]) for one in (two_budgets, all_budgets))
    assert {row[5] for row in table_of(before, "Registered").rows} == {"not trained yet"}
    assert predictions(before)["measured_loss"].isna().all()
    shown, table = table_of(after, "Registered").rows, predictions(after)
    assert len(shown) == len(table) == 2 * 3
    for *_, measured, miss in shown:
        assert " at " in str(measured)
        assert abs(float(str(miss))) < 0.05
    off = (table["loss"] - table["measured_loss"]).tolist()
    assert off == pytest.approx(table["loss_error"].tolist())
    assert set(table["sha256"]) == {found.sha256}
    text = Elements(html_of(after)).words
    runs = f"{len(two_budgets.table)} finished runs"
    assert f"predicted from {runs} of {name}, SHA-256 {found.sha256}" in text


def test_a_changed_prediction_is_refused(
    tmp_path: Path, predicted: Predictions, two_budgets: Analysis
) -> None:
    path = tmp_path / "8e13.json"
    register(path, two_budgets.study.name, two_budgets.table, predicted)
    content = json.loads(path.read_text())
    content["predictions"][0]["loss"]["value"] -= 0.01
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was registered"):
        read_registrations(tmp_path)


def test_what_is_trained_or_registered_already_is_not_registered(
    tmp_path: Path, predicted: Predictions, two_budgets: Analysis, all_budgets: Analysis
) -> None:
    name = all_budgets.study.name
    with pytest.raises(ValueError, match="has been trained already"):
        register(tmp_path / "a.json", name, all_budgets.table, predicted)
    register(tmp_path / "a.json", name, two_budgets.table, predicted)
    with pytest.raises(ValueError, match="is not replaced"):
        register(tmp_path / "a.json", name, two_budgets.table, predicted)


def test_any_other_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="no registered prediction"):
        read_registrations(tmp_path)
