"""Records of runs with given losses."""

from __future__ import annotations

from collections.abc import Mapping

from given import ENVIRONMENT
from isoflop.config import Evaluation, ParameterCount, RunConfig, RunRecord


def record_of(
    config: RunConfig, losses: Mapping[tuple[str, str], float], state: str = "finished"
) -> RunRecord:
    """Return the record of a run, with losses by split and decision; sizes go with its width."""
    width = config.model.width
    return RunRecord(
        run_id=config.run_id,
        state=state,
        config=config,
        parameters=ParameterCount(
            total=width * 1000, non_embedding=width * 900, active=width * 500
        ),
        forward_flops=width * 2000.0,
        train_flops={"causal": 5e12},
        seconds=1.0,
        evaluations=tuple(
            Evaluation(split=split, decision=decision, loss=loss, bits_per_byte=loss / 2, tokens=7)
            for (split, decision), loss in losses.items()
        ),
        data_sha256="0",
        environment=ENVIRONMENT,
    )
