"""Tables as people keep them become runs, or say in one line why not."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import run_table
from isoflop.fit.tables.frame import COLUMNS, group_budgets

GOOD = pd.DataFrame(
    {"loss": [3.0, 2.9, 2.95], "parameters": [1e6, 2e6, 4e6], "tokens": [4e7, 2e7, 1e7]}
)


def test_the_third_of_size_tokens_and_compute_follows() -> None:
    runs = run_table(GOOD)
    assert list(runs.table) == [*COLUMNS, "training_flops"]
    np.testing.assert_allclose(runs.table["budget_flops"], 6 * 4e13)
    assert "budget_flops = 6 N D" in runs.understood
    compute = GOOD.drop(columns="tokens").assign(budget_flops=2.4e14)
    np.testing.assert_allclose(run_table(compute).table["tokens"], GOOD["tokens"])
    sizes = GOOD.drop(columns="parameters").assign(budget_flops=2.4e14)
    np.testing.assert_allclose(run_table(sizes).table["parameters"], GOOD["parameters"])
    every = run_table(GOOD.assign(budget_flops=7e14))
    np.testing.assert_allclose(every.table["budget_flops"], 7e14)
    assert every.notes == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD.drop(columns="loss"), "expected loss and two of"),
        (GOOD.drop(columns="tokens"), "expected loss and two of"),
        (GOOD.iloc[:0], "has no rows; expected a row for each run"),
        (GOOD.assign(loss=-1.0), "loss is no number that a run has"),
    ],
)
def test_a_table_without_runs_says_what_was_expected(rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_table(rows)


def test_rows_that_are_no_runs_are_left_out_and_counted() -> None:
    bad = pd.DataFrame(
        {
            "loss": [None, "diverged", np.inf, -2.0, 3.0, 3.0, 0.0],
            "parameters": [1e6, 1e6, 1e6, 1e6, 0.0, 1e6, 1e6],
            "tokens": [1e7, 1e7, 1e7, 1e7, 1e7, np.nan, 1e7],
        }
    )
    runs = run_table(pd.concat([GOOD, bad, GOOD], ignore_index=True))
    assert len(runs.table) == 3
    told = {one.reason: (one.rows, one.first) for one in runs.left_out}
    assert told == {
        "loss is no number that a run has": (5, 4),
        "parameters is no number that a run has": (1, 8),
        "tokens is no number that a run has": (1, 9),
        "the row is a copy of an earlier one": (3, 11),
    }


def test_seeds_of_equal_loss_are_no_copies_and_runs_without_a_seed_share_none() -> None:
    twice = pd.concat([GOOD, GOOD]).assign(seed=[0, 0, 0, 1, 1, 1])
    assert len(run_table(twice).table) == 6
    assert run_table(GOOD).table["seed"].nunique() == 3
    assert run_table(GOOD.assign(seed=[0.0, None, None])).table["seed"].nunique() == 3


def test_budgets_that_nearly_agree_are_one() -> None:
    flops = np.array([1.09e15, 1e15, 0.93e15, 3e15, 1e19])
    groups, farthest = group_budgets(flops, 0.1)
    middle = np.sqrt(0.93 * 1.09) * 1e15
    assert groups.tolist() == pytest.approx([middle, middle, middle, 3e15, 1e19])
    assert farthest == pytest.approx(np.sqrt(1.09 / 0.93) - 1)
    assert len(np.unique(group_budgets(flops, 0.01)[0])) == 5
    assert group_budgets(np.full(5, 3.3e21))[1] == 0


def test_clusters_come_from_a_column_and_a_missing_one_is_its_own() -> None:
    rows = GOOD.assign(lab=["a", "a", None])
    table = run_table(rows, cluster="lab").table
    assert table["cluster"].tolist() == ["a", "a", "row 3"]
    with pytest.raises(ValueError, match="has no column 'team'"):
        run_table(rows, cluster="team")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("success", [True, False, None]),
        ("summary.success", ["1", "0", ""]),
        ("Finished", ["yes", "No", "yes"]),
        ("diverged", [False, True, False]),
        ("status", ["True", "false", "TRUE"]),
        *(("state", ["done", one, "done"]) for one in ("FAILED", "OUT_OF_MEMORY", "", "phase 2")),
    ],
)
def test_states_and_flags_tell_which_runs_have_finished(column: str, cells: list[object]) -> None:
    runs = run_table(GOOD.assign(**{column: pd.Series(cells, dtype=object)}))
    assert runs.table["loss"].tolist() == [3.0, 2.95]
    assert [(one.rows, one.first, one.value) for one in runs.left_out] == [(1, 2, str(cells[1]))]


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("success", ["0.5", "1", "0"]),
        ("success", [0, 0, 0]),
        ("success", ["", "", ""]),
        ("state", ["finished", "FINISHED", "Completed"]),
        ("state", ["success", "SUCCEEDED", "done"]),
    ],
)
def test_usual_words_and_what_may_be_no_flag_leave_no_run_out(
    column: str, cells: list[object]
) -> None:
    assert len(run_table(GOOD.assign(**{column: cells})).table) == 3


def test_other_states_are_named_and_said_by_a_condition() -> None:
    numbered = GOOD.assign(status=[0, 1, 0])
    with pytest.raises(ValueError, match=r"holds '0', '1'.*--where \"status=0\".*state=COLUMN"):
        run_table(numbered)
    assert len(run_table(numbered, where=["status=0"]).table) == 2
