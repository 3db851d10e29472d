import math

import pytest
from made_records import record_of

from given import small_model
from isoflop.config import RunConfig, RunRecord, TopK
from isoflop.fit import frame
from isoflop.fit.tables.frame import COLUMNS, budgets, curve_rows, one_budget, trained_sizes


def record(
    width: int = 32,
    seed: int = 0,
    loss: float | None = 1.25,
    *,
    state: str = "finished",
    routed: bool = False,
    budget: float | None = 5e12,
) -> RunRecord:
    depth = {"depth": TopK(capacity=0.125)} if routed else {}
    model = small_model(width=width, **depth)
    config = RunConfig(model=model, steps=10, sequences_per_step=2, budget_flops=budget, seed=seed)
    headline = "predictor" if routed else "every_token"
    losses = {}
    if loss is not None:
        losses = {("validation", headline): loss + 1, ("test", headline): loss}
        if routed:
            losses["test", "top_k"] = loss - 0.1
    return record_of(config, losses, state)


def test_a_row_holds_the_causal_headline_and_the_others_beside_it() -> None:
    one = record(routed=True, loss=1.24)
    row = frame([one], {one.run_id: "MoD"}).iloc[0]
    assert list(row.index) == list(COLUMNS)
    assert (row["loss"], row["validation_loss"]) == (1.24, 2.24)
    assert row["top_k_loss"] == pytest.approx(1.14)
    assert (row["variant"], row["blocks"], row["width"], row["seed"]) == ("MoD", 2, 32, 0)
    assert (row["parameters"], row["non_embedding"]) == (32_000, 28_800)
    assert row["tokens"] == 10 * 2 * 256
    assert row["forward_flops"] == 64_000
    plain = record()
    assert math.isnan(frame([plain], {plain.run_id: "Baseline"})["top_k_loss"].iloc[0])


def test_diverged_and_off_ladder_runs_are_listed_but_not_fitted() -> None:
    records = [record(32), record(48), record(64, loss=0.5, state="failed"), record(80)]
    names = {one.run_id: "Baseline" for one in records}
    table = frame(records, names, off_ladder={records[1].run_id})
    assert len(table) == 4
    assert math.isnan(table["loss"].iloc[2])
    assert curve_rows(table, "Baseline", 5e12)["width"].tolist() == [32, 80]
    sizes = trained_sizes(table, "Baseline", 5e12)
    assert [(one.width, one.on_ladder) for one in sizes] == [(32, True), (48, False), (80, True)]


def test_seeds_of_a_size_are_averaged_and_kept() -> None:
    records = [record(32, seed, 1.2 + 0.1 * seed) for seed in (2, 0, 1)]
    (size,) = trained_sizes(
        frame(records, {r.run_id: "Baseline" for r in records}), "Baseline", 5e12
    )
    assert size.loss == pytest.approx(1.3)
    assert size.seeds == (0, 1, 2)
    assert size.seed_losses == pytest.approx((1.2, 1.3, 1.4))
    assert size.run_ids[1] == records[2].run_id


def test_contradictions_are_errors() -> None:
    one = record()
    with pytest.raises(ValueError, match="no variant"):
        frame([one], {})
    with pytest.raises(ValueError, match="listed twice"):
        frame([one, one], {one.run_id: "Baseline"})
    with pytest.raises(ValueError, match="no test loss under 'every_token'"):
        frame([record(loss=None)], {one.run_id: "Baseline"})


def test_budgets_and_the_one_that_is_meant() -> None:
    records = [record(budget=2e13), record(budget=5e12), record(budget=None)]
    table = frame(records, {one.run_id: "Baseline" for one in records})
    assert budgets(table) == (5e12, 2e13)
    assert one_budget(table, 2e13) == 2e13
    with pytest.raises(ValueError, match="name one of them"):
        one_budget(table, None)
    with pytest.raises(ValueError, match="expected one of"):
        one_budget(table, 1e13)
    assert one_budget(table[table["budget_flops"] == 5e12], None) == 5e12


def test_no_records_make_an_empty_table_with_all_columns() -> None:
    table = frame([], {})
    assert list(table.columns) == list(COLUMNS)
    assert budgets(table) == ()
    assert trained_sizes(table, "Baseline", 5e12) == ()
