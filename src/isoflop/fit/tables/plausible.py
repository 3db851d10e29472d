"""Whether sizes, tokens and compute can be those of language models, or are in other units."""

from __future__ import annotations

import math
from collections.abc import Mapping

from isoflop.fit.tables.columns import quoted
from isoflop.fit.tables.names import AXES
from isoflop.fit.tables.sieve import Sieve

LEAST = {"parameters": 10_000, "tokens": 100_000}
"""Of the middle run. The smallest models of published studies have some ten thousand parameters; a
table in millions would need models of ten billion in its middle to get past this. Fewer tokens are
no training: a single batch has more."""
MOST = {"parameters": 1e15, "tokens": 1e16}
"""What may follow from compute in the middle run."""
FARTHEST = 100.0
"""Factor of compute over 6 N D. Attention, embeddings and routing move it by less than ten, experts
by up to some tens; a unit mistaken by a thousand lies beyond."""
LARGEST_LOSS = 12.5
"""Of the middle run. Guessing costs the log of the vocabulary: 12.5 nats for 268,000 tokens."""

_SCALES = (1e3, 1e6, 1e9, 1e12)
_COMPUTE = (*_SCALES, 1e15, 1e18, 1e21, 8.64e19)
_COMPUTE_WORDS = {8.64e19: "PFLOP/s-days", 1e9: "GFLOPs", 1e12: "TFLOPs", 1e15: "PFLOPs"}
_TOKENS_PER_PARAMETER = 20.0
"""Of Hoffmann et al. (arXiv 2203.15556): which of two scales is likelier."""


def check_units(sieve: Sieve) -> None:
    """Refuse sizes, tokens or compute that are so far off that their unit must be another.

    What an expression says is taken as it is, so that nobody is kept from fitting tiny models.

    Raises:
        ValueError: in one line, with the factor to try.
    """
    values, wanted = sieve.values[sieve.kept], sieve.wanted
    asked = {}
    factors: dict[str, float] = {}
    middle = {axis: float(values[axis].median()) for axis in AXES if axis in values}
    for axis, least in LEAST.items():
        if axis in middle and not wanted[axis].computed and middle[axis] < least:
            factors[axis] = _likely(axis, middle, factors.get("parameters", 1.0))
            asked[axis] = f"{_said(sieve, axis)} is {middle[axis]:,.4g} in the middle run"
    if asked:
        raise ValueError(
            f"{sieve.source}: {' and '.join(asked.values())}, too few for a language model; if "
            f"that is another unit, say {_options(sieve, factors)}; "
            "times 1 takes the values as they are"
        )
    if "budget_flops" in values and not wanted["budget_flops"].computed:
        _check_compute(sieve, middle)


def _check_compute(sieve: Sieve, middle: Mapping[str, float]) -> None:
    values = sieve.values[sieve.kept]
    absent = next((axis for axis in LEAST if axis not in values), None)
    if absent is None:
        ratio = values["budget_flops"] / (6 * values["parameters"] * values["tokens"])
        off = float(ratio.median())
        if 1 / FARTHEST <= off <= FARTHEST:
            return
        what = f"{off:.2g} of 6 N D in the middle run"
    else:
        other = "tokens" if absent == "parameters" else "parameters"
        follows = values["budget_flops"] / (6 * values[other])
        if sieve.wanted[other].computed or LEAST[absent] <= follows.median() <= MOST[absent]:
            return
        usual = _TOKENS_PER_PARAMETER if absent == "tokens" else 1 / _TOKENS_PER_PARAMETER
        off = float((follows / values[other]).median()) / usual
        what = (
            f"{middle['budget_flops']:.3g} in the middle run, so that "
            f"{float(follows.median()):.2g} {absent} would follow from C = 6 N D"
        )
    factor = _nearest(1 / off, _COMPUTE)
    again = "expected total training FLOPs: name another column with --columns"
    if abs(math.log10(factor * off)) < (2 if absent is None else 6):
        words = f" (as for {_COMPUTE_WORDS[factor]})" if factor in _COMPUTE_WORDS else ""
        options = _options(sieve, {"budget_flops": factor})
        again = f"if it is in another unit, say {options}{words}"
    raise ValueError(f"{sieve.source}: {_said(sieve, 'budget_flops')} is {what}; {again}")


def loss_warning(sieve: Sieve) -> str | None:
    """Return a sentence where losses are higher than any model's, as perplexities are."""
    middle = float(sieve.values["loss"][sieve.kept].median())
    if sieve.wanted["loss"].computed or not middle > LARGEST_LOSS:
        return None
    return (
        f"{_said(sieve, 'loss')} is {middle:.4g} in the middle run, more than guessing costs a "
        "language model; if it is a perplexity, say --columns "
        f"'loss=log({quoted(sieve.wanted['loss'].used[0])})'."
    )


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


def _said(sieve: Sieve, name: str) -> str:
    return f'{name} ("{sieve.wanted[name].used[0]}")'


def _options(sieve: Sieve, factors: Mapping[str, float]) -> str:
    texts = []
    for axis, factor in factors.items():
        column = quoted(sieve.wanted[axis].used[0])
        mark = "'" if column.startswith('"') else '"'
        short = f"{factor:.3g}".replace("e+0", "e").replace("e+", "e")
        texts.append(f"{mark}{axis}={column}*{short}{mark}")
    return f"--columns {' '.join(texts)}"
