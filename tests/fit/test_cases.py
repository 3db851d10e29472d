"""Tables in the shapes in which people publish their runs are read right: `tests/cases/README.md`.

The law behind most of them: L = 1.8 + 480 / N^0.35 + 2100 / D^0.37.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import RunTable, run_table

CASES = Path(__file__).parents[1] / "cases"
RESULTS = Path(__file__).parents[2] / "results"


def read(name: str, **options: object) -> RunTable:
    return run_table(CASES / name, **options)  # type: ignore[arg-type]


def law(n: pd.Series, d: pd.Series) -> pd.Series:
    return 1.8 + 480 / n**0.35 + 2100 / d**0.37


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("near-duplicate-sizes.csv", {}, 36),
        ("as-people-type.csv", {}, 24),
        ("table.csv.gz", {}, 32),
        ("records-array.json", {}, 16),
        ("trailing-comma.csv", {}, 56),
        ("state-finished.csv", {}, 49),
        ("total-params.csv", {}, 56),
        ("jittered-budgets.csv", {}, 63),
        ("units-millions.csv", {"parameters": "params*1e6", "tokens": "tokens*1e9"}, 56),
    ],
)
def test_columns_are_those_of_the_law(name: str, columns: Mapping[str, str], rows: int) -> None:
    """The losses of every row follow from its own size and tokens.

    The files' laws differ by up to 0.13; a column in the place of another is off by whole nats.
    """
    runs = read(name, columns=columns)
    table = runs.table
    assert len(table) == rows
    off = table["loss"] - law(table["parameters"], table["tokens"])
    assert off.abs().max() < 0.16
    assert runs.warnings == ()
    assert f"{rows} of " in runs.understood


def test_as_people_type() -> None:
    runs = read("as-people-type.csv")
    first = runs.table.iloc[0]
    assert (first["parameters"], first["tokens"], first["loss"]) == (52.4e6, 19.08e9, 3.0966)
    assert (runs.table["loss"] == 2.954).sum() == 1
    assert "semicolons" in runs.understood
    assert 'parameters = "Params" (52.4M is 52,400,000)' in runs.understood
    assert 'loss = "Final loss" (3,0966 is 3.0966)' in runs.understood


def test_a_trailing_comma_moves_no_column() -> None:
    runs = read("trailing-comma.csv")
    first = runs.table.iloc[0]
    assert first["loss"] == 3.1896506544121856
    assert first["parameters"] == 49_300_000
    assert first["tokens"] == 20283975659.22921
    assert 'loss = "val_loss"' in runs.understood


def test_parameters_in_millions_are_asked_about() -> None:
    with pytest.raises(ValueError, match="too few for a language model") as error:
        read("units-millions.csv")
    assert '--columns "parameters=params*1e6" "tokens=tokens*1e9"' in str(error.value)
    scaled = {"parameters": "params*1e6", "tokens": "tokens*1e9"}
    first = read("units-millions.csv", columns=scaled).table.iloc[0]
    assert first["parameters"] == pytest.approx(49.3e6, rel=1e-15)
    assert first["tokens"] == pytest.approx(20.28397565922921e9, rel=1e-15)


def test_rates_are_noticed_and_the_best_is_kept() -> None:
    (warning,) = read("learning-rate-sweep.csv").warnings
    assert "differ in peak_lr (0.001, 0.003, 0.01)" in warning
    assert "up to 0.25" in warning
    assert "--best-of peak_lr" in warning
    runs = read("learning-rate-sweep.csv", best_of=["peak_lr"])
    assert runs.warnings == ()
    assert len(runs.table) == 32
    assert any("of 3 tried is kept for each of 32" in note for note in runs.notes)


def test_two_conditions_are_noticed() -> None:
    (warning,) = read("two-conditions-unnamed.csv").warnings
    assert "32 of 32" in warning
    assert "from 3.097 to 5.574" in warning
    assert "no column of the table tells them apart" in warning
    rows = pd.read_csv(CASES / "two-conditions-unnamed.csv")
    rows["corpus"] = np.where(np.arange(len(rows)) % 2, "code", "web")
    named = run_table(rows)
    assert len(named.warnings) == 1
    assert "differ in corpus (code, web)" in named.warnings[0]
    assert "--columns variant=corpus" in named.warnings[0]
    kept = run_table(rows, where=["corpus=web"])
    assert kept.warnings == ()
    assert kept.table["loss"].max() < 3.2


def test_finished_in_capitals_counts_and_failed_does_not() -> None:
    runs = read("state-finished.csv")
    assert len(runs.table) == 49
    (left,) = runs.left_out
    assert (left.rows, left.first, left.value) == (7, 1, "FAILED")
    assert "7 rows: the run has not finished (first: row 1, 'FAILED')" in runs.understood


def test_total_parameters_are_the_size() -> None:
    table = read("total-params.csv").table
    assert table["parameters"].iloc[0] == 49_300_000
    assert table["non_embedding"].iloc[0] == 39_440_000


def test_tokens_are_steps_times_batch() -> None:
    columns = {"tokens": "step*batch_tokens", "parameters": "dense_params", "variant": "router"}
    with pytest.raises(ValueError, match=r"parameters=dense_params tokens=step\*batch_tokens"):
        read("steps-times-batch.csv")
    every = read("steps-times-batch.csv", columns=columns).table
    assert len(every) == 32
    assert every["tokens"].iloc[1] == 20_000 * 524_288
    assert set(every["variant"]) == {"top_k", "dense"}
    flops = {"budget_flops": "step*flops_per_step", "parameters": "dense_params"}
    by_flops = read("steps-times-batch.csv", columns=flops).table
    np.testing.assert_allclose(by_flops["tokens"], every["tokens"], rtol=1e-12)
    last = read("steps-times-batch.csv", columns=columns, last_of="step")
    assert len(last.table) == 8
    np.testing.assert_allclose(last.table["tokens"], 100_000 * 524_288)
    assert last.table["loss"].tolist()[:2] == [3.5039, 2.9698]
    without = {"tokens": "step*batch_tokens", "parameters": "dense_params"}
    assert len(read("steps-times-batch.csv", columns=without, last_of="step").table) == 8


def test_datasets_are_variants_where_they_are_said_to_be() -> None:
    runs = read("token-multiplier-grid.csv", columns={"variant": "dataset"})
    assert runs.table["variant"].value_counts().to_dict() == {"web": 25, "filtered": 25}
    assert runs.warnings == ()
    (warning,) = read("token-multiplier-grid.csv").warnings
    assert "differ in dataset (filtered, web)" in warning


def test_jittered_budgets_keep_their_own_compute() -> None:
    table = read("jittered-budgets.csv").table
    own = 6 * table["parameters"] * table["tokens"]
    np.testing.assert_allclose(table["training_flops"], own, rtol=1e-12)
    assert table["budget_flops"].nunique() < table["training_flops"].nunique()


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("*/figures/runs.csv")), ids=lambda path: path.parts[-3]
)
def test_our_own_tables_raise_no_alarm(path: Path) -> None:
    runs = run_table(path)
    assert runs.warnings == ()
    assert runs.left_out == ()
    pd.testing.assert_series_equal(runs.table["loss"], pd.read_csv(path)["loss"], check_exact=True)
