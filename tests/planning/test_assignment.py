"""Every run that a study trains is known as its own afterwards, and no other one is."""

from driven_grid import make_study

from given import record_of
from isoflop.config import Recipe, Study, TopK, Variant
from isoflop.costs import parameters
from isoflop.planning import next_runs
from isoflop.planning.assignment import assign


def trained(study):
    """Train a study in thought, with the minimum at the smallest size so that sizes are added."""
    records, planned = [], {}
    while runs := next_runs(study, records):
        for run in runs:
            planned[run.config.run_id] = run
            loss = 1 + abs(parameters(run.config.model).total - 150e3) / 1e6
            records.append(record_of(run.config, loss))
    return records, planned


def test_runs_of_an_edited_study_are_foreign():
    study = make_study()
    records = [record_of(run.config, 1.0) for run in next_runs(study, [])]
    edited = study.model_copy(update={"evaluation_tokens": 1024})
    found = assign(edited, records)
    assert len(found.foreign) == len(records)
    assert found.variant_of == {}
    fewer = study.model_copy(update={"variants": study.variants[:2]})
    assert {records[i].run_id for i in range(14)} == set(assign(fewer, records).variant_of)


def test_matched_shapes_are_foreign_once_they_are_not_asked_for():
    study = make_study()
    records, planned = trained(study)
    matched = {run_id for run_id, run in planned.items() if run.purpose == "matched"}
    assert matched
    without = study.model_copy(update={"matched_shapes": False})
    assert set(assign(without, records).foreign) == matched


def test_a_run_that_two_variants_share_is_the_first_ones():
    twins = tuple(Variant(name=name, depth=TopK(capacity=0.5)) for name in ("A", "B"))
    study = Study(name="twins", budgets_flops=(5e12,), recipe=Recipe(), variants=twins)
    records = [record_of(run.config, 1.0) for run in next_runs(study, [])]
    assert set(assign(study, records).variant_of.values()) == {"A"}
