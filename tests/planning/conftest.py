"""Studies and made-up records that the tests of planning share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from given import ENVIRONMENT
from isoflop.config import (
    Evaluation,
    ParameterCount,
    RandomK,
    Recipe,
    RunConfig,
    RunRecord,
    Study,
    TopK,
    Variant,
    decisions,
)

MakeRecord = Callable[..., RunRecord]
MakeStudy = Callable[..., Study]


@pytest.fixture
def make_study() -> MakeStudy:
    def make(**changes: Any) -> Study:
        values: dict[str, Any] = {
            "name": "study",
            "budgets_flops": (5e12,),
            "recipe": Recipe(),
            "variants": (
                Variant(name="Baseline"),
                Variant(name="MoD", depth=TopK(capacity=0.125)),
                Variant(name="Random", depth=RandomK(capacity=0.5)),
            ),
        }
        return Study(**{**values, **changes})

    return make


@pytest.fixture
def make_record() -> MakeRecord:
    def make(
        config: RunConfig,
        loss: float | None,
        state: Literal["finished", "diverged", "failed"] = "finished",
    ) -> RunRecord:
        evaluations = () if loss is None else (_evaluation(config, loss),)
        return RunRecord(
            run_id=config.run_id,
            state=state,
            config=config,
            # Planning goes by the configuration; these are what it must not read.
            parameters=ParameterCount(total=1, non_embedding=1, active=1),
            forward_flops=1.0,
            train_flops={},
            seconds=1.0,
            evaluations=evaluations,
            data_sha256="0" * 64,
            environment=ENVIRONMENT,
        )

    return make


def _evaluation(config: RunConfig, loss: float) -> Evaluation:
    return Evaluation(
        split="validation",
        decision=decisions(config.model.depth)[0],
        loss=loss,
        bits_per_byte=loss,
        tokens=1,
    )
