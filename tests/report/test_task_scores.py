"""Scores in tasks on the page: a figure of each, and the prediction in two steps."""

from __future__ import annotations

import numpy as np
import synthetic_study as synthetic
from made_reports import analysed, told

from isoflop.config import TaskScore, TaskScores
from isoflop.fit.tasks import sigmoid
from isoflop.report.sections import sections
from isoflop.report.sections.tasks import section

CURVE = (0.25, 0.6, 9.0, 0.95)


def scored(records, **changes):
    return {
        one.run_id: TaskScores(
            run_id=one.run_id,
            lm_eval="0.4.13",
            scores=[
                TaskScore(
                    task="arc <b>",
                    metric="acc",
                    value=float(sigmoid(one.evaluation("test").loss, CURVE)),
                    error=0.01,
                    decision=one.config.model.decisions[0],
                ).model_copy(update=changes)
            ],
        )
        for one in records
    }


def test_scores_have_a_figure_and_are_predicted_in_two_steps():
    study = synthetic.study(budgets=(5e12, 2e13, 8e13), variants=synthetic.VARIANTS[:2])
    runs = synthetic.runs(study)
    records = [record for *_, record in runs]
    plain = analysed(study, runs)
    assert section(plain) is None
    found = told(plain, tasks=scored(records))
    (part,) = (one for one in sections(found) if one.title == "Tasks")
    (figure,), (table,) = part.figures(), part.tables()
    assert figure.name == "task-arc--b---acc"
    assert len(figure.table) == len(records)
    assert np.allclose(figure.table["high"] - figure.table["low"], 2 * 1.96 * 0.01)
    assert table.caption.startswith("Scores at 4 times the largest budget")
    assert [row[0] for row in table.rows] == ["arc <b>, acc"] * 2
    for _, _, budget, loss, score, runs_told in table.rows:
        assert (budget, runs_told) == ("3.2×10¹⁴", str(len(records)))
        expected = float(sigmoid(float(loss.split()[0]), CURVE))
        assert abs(float(score.split()[0]) - expected) < 0.02
    # Scores of parts of a task, or under another decision, are no run's own.
    for changes in ({"limit": 5}, {"decision": "top_k"}, {"value": 31.0}):
        assert section(told(plain, tasks=scored(records, **changes))) is None
    few = section(told(plain, tasks=scored(records[:7])))
    assert [one.name for one in few.figures()] == ["task-arc--b---acc"]
    assert not list(few.tables())
