"""Whether sizes, tokens and compute can be those of language models, or are in other units."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from isoflop.fit.tables.names import plain
from isoflop.fit.tables.wanted import AXES, Wanted

LEAST_PARAMETERS = 10_000
"""Of the middle run. The smallest models of published studies have some ten thousand; a table in
millions would need models of ten billion parameters in its middle to get past this."""
LEAST_TOKENS = 100_000
"""Of the middle run. Fewer are no training: a single batch has more."""
FARTHEST = 100.0
"""Factor of compute over 6 N D. Attention, embeddings and routing move it by less than ten, experts
by up to some tens; a unit mistaken by a thousand lies beyond."""
LARGEST_LOSS = 12.5
"""Of the middle run. Guessing costs the log of the vocabulary: 12.5 nats for 268,000 tokens."""

_SCALES = (1e3, 1e6, 1e9, 1e12)
_COMPUTE = (1e3, 1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 8.64e19)
_COMPUTE_WORDS = {8.64e19: "PFLOP/s-days", 1e9: "GFLOPs", 1e12: "TFLOPs", 1e15: "PFLOPs"}
_TOKENS_PER_PARAMETER = 20.0
"""Of Hoffmann et al. (arXiv 2203.15556): which of two scales is likelier."""


def check_units(values: pd.DataFrame, wanted: Mapping[str, Wanted], source: str) -> None:
    """Refuse sizes, tokens or compute that are so far off that their unit must be another.

    What an expression says is taken as it is, so that nobody is kept from fitting tiny models.

    Args:
        values: `AXES` as far as there are, of usable rows.
        wanted: where they come from.
        source: what to call the table in messages.

    Raises:
        ValueError: in one line, with the factor to try.
    """
    asked = {}
    factors = dict.fromkeys(AXES, 1.0)
    middle = {axis: float(values[axis].median()) for axis in AXES if axis in values}
    for axis, least in (("parameters", LEAST_PARAMETERS), ("tokens", LEAST_TOKENS)):
        if axis in middle and not wanted[axis].computed and middle[axis] < least:
            factors[axis] = _likely(axis, middle, factors["parameters"])
            asked[axis] = f"{_said(wanted[axis])} is {middle[axis]:,.4g} in the middle run"
    if asked:
        raise ValueError(
            f"{source}: {' and '.join(asked.values())}, too few for a language model; if that is "
            f"another unit, say {_options(wanted, {one: factors[one] for one in asked})}; "
            "times 1 takes the values as they are"
        )
    _check_compute(values, wanted, source)


def loss_warning(values: pd.DataFrame, wanted: Mapping[str, Wanted]) -> str | None:
    """Return a sentence where losses are higher than any model's, as perplexities are."""
    middle = float(values["loss"].median())
    if wanted["loss"].computed or not middle > LARGEST_LOSS:
        return None
    column = wanted["loss"].used[0]
    text = f"loss=log({column})" if _easy(column) else f'loss=log("{column}")'
    return (
        f"{_said(wanted['loss'])} is {middle:.4g} in the middle run, more than guessing costs a "
        f"language model; if it is a perplexity, say --columns '{text}'."
    )


def _easy(column: str) -> bool:
    return column == plain(column) and not column[0].isdigit()


def _check_compute(values: pd.DataFrame, wanted: Mapping[str, Wanted], source: str) -> None:
    if "budget_flops" not in values or wanted["budget_flops"].computed:
        return
    missing = next((axis for axis in AXES if axis not in values), None)
    if missing is None:
        ratio = values["budget_flops"] / (6 * values["parameters"] * values["tokens"])
        middle = float(ratio.median())
        if 1 / FARTHEST <= middle <= FARTHEST:
            return
        what = f"{middle:.2g} of 6 N D in the middle run"
    else:
        other = "tokens" if missing == "parameters" else "parameters"
        if wanted[other].computed:
            return
        follows = values["budget_flops"] / (6 * values[other])
        least = LEAST_TOKENS if missing == "tokens" else LEAST_PARAMETERS
        most = 1e16 if missing == "tokens" else 1e15
        if least <= follows.median() <= most:
            return
        per = float((follows / values[other]).median())
        usual = _TOKENS_PER_PARAMETER if missing == "tokens" else 1 / _TOKENS_PER_PARAMETER
        middle = per / usual
        what = (
            f"{float(values['budget_flops'].median()):.3g} in the middle run, so that "
            f"{float(follows.median()):.2g} {missing} would follow from C = 6 N D"
        )
    factor = _nearest(1 / middle, _COMPUTE)
    words = _COMPUTE_WORDS.get(factor)
    unit = f" (as for {words})" if words else ""
    close = abs(math.log10(factor * middle)) < (2 if missing is None else 6)
    again = (
        f"if it is in another unit, say {_options(wanted, {'budget_flops': factor})}{unit}"
        if close
        else "expected total training FLOPs: name another column with --columns"
    )
    raise ValueError(f"{source}: {_said(wanted['budget_flops'])} is {what}; {again}")


def _likely(axis: str, middle: Mapping[str, float], of_parameters: float) -> float:
    """Return the scale by which a column is likeliest to be off."""
    if axis == "parameters":
        return 1e9 if middle[axis] < 10 else 1e6
    if "parameters" not in middle:
        return 1e9 if middle[axis] < 1000 else 1e6
    per = middle["tokens"] / (middle["parameters"] * of_parameters)
    return _nearest(_TOKENS_PER_PARAMETER / per, _SCALES)


def _nearest(value: float, scales: tuple[float, ...]) -> float:
    return min(scales, key=lambda one: abs(math.log(one / value)))


def _said(one: Wanted) -> str:
    return f'{one.name} ("{one.used[0]}")'


def _options(wanted: Mapping[str, Wanted], factors: Mapping[str, float]) -> str:
    texts = []
    for axis, factor in factors.items():
        column = wanted[axis].used[0]
        short = f"{factor:.3g}".replace("e+0", "e").replace("e+", "e")
        if _easy(column):
            texts.append(f'"{axis}={column}*{short}"')
        else:
            texts.append(f"'{axis}=\"{column}\"*{short}'")
    return f"--columns {' '.join(texts)}"
