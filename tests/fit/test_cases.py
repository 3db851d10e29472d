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


def test_what_was_understood_is_said() -> None:
    said = read("as-people-type.csv").understood
    assert "semicolons" in said
    assert 'parameters = "Params" (52.4M is 52,400,000)' in said
    assert 'loss = "Final loss" (3,0966 is 3.0966)' in said
    runs = read("state-finished.csv")
    (left,) = runs.left_out
    assert (left.rows, left.first, left.value) == (7, 1, "FAILED")
    assert f"left out {left.words}." in runs.understood


def test_parameters_in_millions_are_asked_about() -> None:
    with pytest.raises(ValueError, match="too few for a language model") as error:
        read("units-millions.csv")
    assert '--columns "parameters=params*1e6" "tokens=tokens*1e9"' in str(error.value)


def test_rates_are_noticed_and_the_best_is_kept() -> None:
    (warning,) = read("learning-rate-sweep.csv").warnings
    assert "differ in peak_lr (0.001, 0.003, 0.01), which moves their loss by up to 0.25" in warning
    assert "--best-of peak_lr" in warning
    runs = read("learning-rate-sweep.csv", best_of=["peak_lr"])
    assert runs.warnings == ()
    assert any("of 3 tried is kept for each of 32" in note for note in runs.notes)


def test_two_conditions_are_noticed() -> None:
    (warning,) = read("two-conditions-unnamed.csv").warnings
    for told in ("32 of 32", "from 3.097 to 5.574", "no column of the table tells them apart"):
        assert told in warning
    rows = pd.read_csv(CASES / "two-conditions-unnamed.csv")
    rows["corpus"] = np.where(np.arange(len(rows)) % 2, "code", "web")
    (warning,) = run_table(rows).warnings
    assert "differ in corpus (code, web)" in warning
    assert "--columns variant=corpus" in warning
    kept = run_table(rows, where=["corpus=web"])
    assert kept.warnings == ()
    assert kept.table["loss"].max() < 3.2


def test_total_parameters_are_the_size() -> None:
    table = read("total-params.csv").table
    assert table["parameters"].iloc[0] == 49_300_000
    assert table["non_embedding"].iloc[0] == 39_440_000


def test_tokens_are_steps_times_batch() -> None:
    with pytest.raises(ValueError, match=r"parameters=dense_params tokens=step\*batch_tokens"):
        read("steps-times-batch.csv")
    columns = {"tokens": "step*batch_tokens", "parameters": "dense_params"}
    every = read("steps-times-batch.csv", columns={**columns, "variant": "router"}).table
    assert every["tokens"].iloc[1] == 20_000 * 524_288
    assert set(every["variant"]) == {"top_k", "dense"}
    flops = {"budget_flops": "step*flops_per_step", "parameters": "dense_params"}
    by_flops = read("steps-times-batch.csv", columns=flops).table
    np.testing.assert_allclose(by_flops["tokens"], every["tokens"], rtol=1e-12)
    last = read("steps-times-batch.csv", columns=columns, last_of="step").table
    assert last["tokens"].tolist() == [100_000 * 524_288] * 8
    assert last["loss"].tolist()[:2] == [3.5039, 2.9698]


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
