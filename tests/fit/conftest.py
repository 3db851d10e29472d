from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest

from isoflop.fit.tables.frame import COLUMNS

BUDGET = 5e12
CENTRE = 2e5
SIZES = CENTRE * 1.6 ** np.arange(-3, 4)


@pytest.fixture(scope="session")
def runs() -> Callable[..., pd.DataFrame]:
    """Return a maker of tables: a parabola per variant, plus a shift per seed near its minimum."""

    def make(
        variants: Mapping[str, Mapping[str, float]],
        *,
        seed_shifts: tuple[float, ...] = (-0.001, 0.0, 0.001),
        budget: float = BUDGET,
        paired: bool = False,
    ) -> pd.DataFrame:
        rows = []
        for index, (name, shape) in enumerate(variants.items()):
            # Shifts that are alike for all variants would cancel where seeds are paired.
            first_seed = 0 if paired else 100 * index
            flops = shape.get("flops_per_parameter", 2.0)
            noise = shape.get("noise", 1.0)
            at = shape.get("at", CENTRE)
            for i, size in enumerate(SIZES):
                loss = shape["loss"] + 0.02 * np.log(size / at) ** 2
                # Seed 0 everywhere, the others near the minimum; seed 0 is the middle one.
                near = 2 <= i <= 4
                shifts = [0.0, *(s for s in seed_shifts if s)] if near else [0.0]
                for seed, shift in enumerate(shifts):
                    rows.append(
                        {
                            "variant": name,
                            "run_id": f"{name}-{i}-{seed}",
                            "state": "finished",
                            "on_ladder": True,
                            "budget_flops": budget,
                            "seed": first_seed + seed,
                            "blocks": 2 + i,
                            "width": 32 + 16 * i,
                            "parameters": size,
                            "non_embedding": size * 0.9,
                            "tokens": budget / 6 / size,
                            "forward_flops": flops * size,
                            "loss": loss + noise * shift,
                            "validation_loss": loss,
                            "top_k_loss": loss,
                            "bits_per_byte": loss / np.log(2),
                        }
                    )
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict(COLUMNS))

    return make
