"""Which runs have finished, by flags and by conditions on states that nobody knows."""

import pandas as pd
import pytest

from isoflop.fit import run_table

TABLE = pd.DataFrame(
    {"loss": [3.0, 2.9, 2.8, 2.7], "parameters": [1e6, 2e6, 4e6, 8e6], "tokens": [4e7] * 4}
)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("success", [True, False, None, True]),
        ("summary.success", ["1", "0", "", "1.0"]),
        ("Finished", ["yes", "No", "yes", "yes"]),
        ("diverged", [False, True, False, False]),
        ("status", ["True", "false", "TRUE", "true"]),
    ],
)
def test_flags_tell_which_runs_have_finished(column: str, cells: list[object]) -> None:
    runs = run_table(TABLE.assign(**{column: pd.Series(cells, dtype=object)}))
    assert runs.table["loss"].tolist() == [3.0, 2.8, 2.7]
    assert [(one.rows, one.first) for one in runs.left_out] == [(1, 2)]


@pytest.mark.parametrize("cells", [["0.5", "1", "0", "1"], [0, 0, 0, 0], ["", "", "", ""]])
def test_what_may_be_no_flag_leaves_no_run_out(cells: list[object]) -> None:
    assert len(run_table(TABLE.assign(success=cells)).table) == 4


def test_states_of_numbers_are_said_by_a_condition() -> None:
    numbered = TABLE.assign(status=[0, 0, 1, 0])
    with pytest.raises(ValueError, match='such as --where "status=0"'):
        run_table(numbered)
    assert len(run_table(numbered, where=["status=0"]).table) == 3
    running = TABLE.assign(status=["running", "good", "good", "good"])
    assert len(run_table(running, where=["status!=bad"]).table) == 3
