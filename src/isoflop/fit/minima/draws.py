"""Parametric bootstrap of minima: measured noise is added to the curve, and it is fitted again.

Both parts of the noise are drawn, and so is the knowledge of them: a spread that rests on two
degrees of freedom is itself uncertain, and intervals are wider for it, as Student's are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from isoflop.fit.intervals import Floats
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.noise import RunNoise, run_noise
from isoflop.fit.minima.sizes import copy_means, size_groups
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.tables.frame import curve_rows

LARGEST_ARRAY = 1_000_000
"""Numbers in one array (copies, runs); more copies go in several batches."""


class CurveDraws:
    """The noise of each curve of a table, and its noisy minima: drawn once for all who ask.

    Args:
        table: as `frame` or `run_table` makes it.
        settings: how many copies of a curve, and their seed. Each curve has draws of its own, the
            same ones for every estimator.
        about_surfaces: noise of a variant's runs about their surface, for curves whose own runs
            do not tell it.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        settings: FitSettings,
        about_surfaces: Mapping[str, RunNoise] | None = None,
    ) -> None:
        self.table, self.settings = table, settings
        self._about_surfaces = about_surfaces or {}
        self._rows: dict[tuple[str, float], pd.DataFrame] = {}
        self._noises: dict[tuple[str, float], RunNoise | None] = {}
        self._minima: dict[tuple[str, float, Estimator], tuple[Floats, Floats]] = {}

    def rows(self, variant: str, budget_flops: float) -> pd.DataFrame:
        """Return what `curve_rows` does."""
        key = (variant, budget_flops)
        if key not in self._rows:
            self._rows[key] = curve_rows(self.table, variant, budget_flops)
        return self._rows[key]

    def noise(self, variant: str, budget_flops: float) -> RunNoise | None:
        """Return the noise of a variant's runs at a budget, None where nothing tells it."""
        key = (variant, budget_flops)
        if key not in self._noises:
            rows = self.rows(variant, budget_flops)
            noise = run_noise(rows)
            if noise is None and len(rows):
                noise = self._about_surfaces.get(variant)
            self._noises[key] = noise
        return self._noises[key]

    def minima(
        self, variant: str, budget_flops: float, estimator: Estimator = "parabola"
    ) -> tuple[Floats, Floats] | None:
        """Return log size and loss at the minima of noisy copies of a curve, (resamples,) each.

        As `CurveEstimator.find_in_copies` tells them; None where nothing tells the noise.
        """
        noise = self.noise(variant, budget_flops)
        if noise is None:
            return None
        key = (variant, budget_flops, estimator)
        if key not in self._minima:
            n = self.rows(variant, budget_flops)["parameters"].to_numpy()
            find = CURVE_ESTIMATORS[estimator].find_in_copies
            parts = [find(n, losses) for losses in self._copies(variant, budget_flops, noise)]
            log_sizes, losses = (np.concatenate(one) for one in zip(*parts, strict=True))
            self._minima[key] = log_sizes, losses
        return self._minima[key]

    def size_losses(self, variant: str, budget_flops: float) -> tuple[Floats, Floats] | None:
        """Return the sizes (S,), ascending, and noisy mean losses of each (R, S).

        The noise is that behind `minima`; None where nothing tells it.
        """
        noise = self.noise(variant, budget_flops)
        if noise is None:
            return None
        n = self.rows(variant, budget_flops)["parameters"].to_numpy()
        copies = self._copies(variant, budget_flops, noise)
        means = [copy_means(n, losses)[2] for losses in copies]
        return size_groups(n)[0], np.concatenate(means)

    def _copies(self, variant: str, budget_flops: float, noise: RunNoise) -> Iterator[Floats]:
        """Yield `noisy_losses` a few copies at a time, so that no array gets large."""
        rows, copies = self.rows(variant, budget_flops), self.settings.resamples
        own = zlib.crc32(f"{variant} at {budget_flops!r}".encode())
        generator = np.random.default_rng((self.settings.seed, own))
        step = max(1, LARGEST_ARRAY // len(rows))
        for at in range(0, copies, step):
            yield noisy_losses(rows, noise, min(step, copies - at), generator)


def noisy_losses(
    rows: pd.DataFrame, noise: RunNoise, copies: int, generator: np.random.Generator
) -> Floats:
    """Return noisy copies (copies, runs) of one curve's losses, about the mean of each size."""
    of_run = size_groups(rows["parameters"])[1]
    centre = rows["loss"].groupby(of_run).transform("mean").to_numpy()
    seeds = np.unique(rows["seed"].to_numpy(), return_inverse=True)[1]
    shared, own = _drawn_spreads(noise, copies, generator)
    each = own[:, None] * generator.standard_normal((copies, len(rows)))
    of_seed = shared[:, None] * generator.standard_normal((copies, int(seeds.max()) + 1))
    return np.asarray(centre + each + of_seed[:, seeds])


def _drawn_spreads(
    noise: RunNoise, copies: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return shared and own spreads (copies,) that the measured ones might have come from."""
    own = noise.run_spread**2 * noise.run_freedom / generator.chisquare(noise.run_freedom, copies)
    if not noise.seed_freedom:
        return np.zeros(copies), np.sqrt(own)
    between = noise.run_spread**2 + noise.shared_sizes * noise.seed_spread**2
    drawn = between * noise.seed_freedom / generator.chisquare(noise.seed_freedom, copies)
    return np.sqrt(np.maximum(0.0, drawn - own) / noise.shared_sizes), np.sqrt(own)
