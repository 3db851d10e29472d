"""What the answers of the checklist count and tell; its templates call these by name."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar, assert_never

from isoflop.config import (
    BlockAttention,
    EveryToken,
    FullAttention,
    RandomK,
    RunRecord,
    Study,
    TopK,
    Variant,
    decisions,
)
from isoflop.fit.checks import RateCheck
from isoflop.fit.curves.minima import MinimumDisagreement
from isoflop.fit.laws.envelope import EnvelopeFit
from isoflop.fit.minima.akima import AKIMA_SIZES
from isoflop.fit.minima.parabola import PARABOLA_SIZES, WINDOW
from isoflop.fit.results import FittedSurface
from isoflop.fit.settings import HUBER_DELTA, Estimator
from isoflop.fit.spans.values import SpanGap
from isoflop.fit.surfaces.bootstrap import DRAWS_WORDS
from isoflop.fit.surfaces.huber import START_EXPONENTS, START_LEVELS
from isoflop.fit.surfaces.huber import STARTS as HUBER_DESCENTS
from isoflop.fit.surfaces.projection import START_EXPONENTS as PROJECTION_EXPONENTS
from isoflop.fit.surfaces.projection import STARTS
from isoflop.notation import count, scientific
from isoflop.report.analysis import Analysis, Studied
from isoflop.report.evidence import RecipeSearch
from isoflop.report.render import table_text
from isoflop.report.scaling import ScalingAnalysis

T = TypeVar("T", bound=Hashable)

CONVENTIONS = {
    "causal": "exact closed forms; each query is charged for the keys it may attend",
    "full": "exact closed forms; attention is charged for the whole square of T by T",
    "6nd": "6 N D with N the non-embedding parameters",
}

HUBER_STARTS = len(START_LEVELS) ** 3 * len(START_EXPONENTS) ** 2

FORMS: Mapping[Estimator, str] = {
    "parabola": "loss at one budget a parabola in log N",
    "akima": "log loss at one budget interpolated over log N by Akima's splines",
    "surface": "L = E + A / N^alpha + B / D^beta over all budgets",
    "variable_projection": "the same surface",
}
"""The functional form of each estimator."""

METHODS: Mapping[Estimator, str] = {
    "parabola": (
        f"least squares over runs of sizes within a factor of {WINDOW:g} of the lowest one, at "
        f"least {PARABOLA_SIZES} sizes; solved exactly"
    ),
    "akima": (
        f"through the means over seeds of at least {AKIMA_SIZES} sizes; nothing is optimised"
    ),
    "surface": (
        f"Huber loss with delta {HUBER_DELTA:g} on log fitted less log measured loss; "
        f"{HUBER_STARTS:,} starts compared, the best {HUBER_DESCENTS} and the least-squares "
        "answer descended, the lowest followed to its end by a trust-region Newton method "
        "with exact derivatives, also with E at zero"
    ),
    "variable_projection": (
        "least squares on the loss, with E, A and B solved exactly by non-negative least squares; "
        f"{len(PROJECTION_EXPONENTS) ** 2:,} pairs of exponents compared, the best {STARTS} "
        "descended"
    ),
}
"""The objective of each estimator, and how it is brought to its minimum."""

NOISE = {
    "seeds": "the spread between seeds of one size, apart for what runs of one seed share",
    "scatter": "the scatter about the parabola, where no size has two seeds",
    "surface": "the scatter about the surface, where a curve's own runs do not tell it",
}
"""What an interval holds, by what its noise was measured from."""


def by_variant(
    study: Study, values: Mapping[str, T], shown: Callable[[T], str] = str
) -> tuple[str, ...]:
    """Return one line per variant, or one for all where they agree."""
    found = [(one.name, values[one.name]) for one in study.variants if one.name in values]
    if len(found) > 1 and len({value for _, value in found}) == 1:
        return (f"Every variant: {shown(found[0][1])}",)
    return tuple(f"{name}: {shown(value)}" for name, value in found)


def spanned(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """Return a range in words: 'X', or 'X to Y'."""
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun: '1 run', '2 runs'."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def architecture(study: Study, variant: Variant) -> str:
    """Return a variant's choices in words."""
    family = variant.shape or study.shape
    match variant.depth:
        case EveryToken():
            depth = "every block processes every token"
        case TopK() | RandomK() as routed:
            chooser = "its router" if isinstance(routed, TopK) else "Gaussian noise"
            where = (
                f"every {_ordinal(routed.every)} block"
                if routed.blocks is None
                else "blocks " + ", ".join(map(str, routed.blocks))
            )
            depth = (
                f"{where} processes the {100 * routed.capacity:g}% of tokens that {chooser} ranks "
                f"highest, {routed.gate} gate"
            )
        case never_depth:
            assert_never(never_depth)
    match variant.attention:
        case FullAttention():
            attention = "full attention"
        case BlockAttention() as blocks:
            attention = f"block attention ({blocks.described})"
        case never_attention:
            assert_never(never_attention)
    parts = [
        attention,
        depth,
        f"{variant.feed_forward.kind} feed-forward, {family.hidden_per_width:.3g} times as wide",
        *([] if study.scaling else [f"width {family.width_per_block:g} times the blocks"]),
        f"heads about {family.head_width} wide",
    ]
    if family.queries_per_kv_head > 1:
        parts.append(f"{family.queries_per_kv_head} queries per key/value head")
    if family.query_key_norm:
        parts.append("RMSNorm on queries and keys")
    parts.append("tied embeddings" if family.tied_embeddings else "separate embeddings and head")
    return "; ".join(parts) + "."


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0)
    return f"{number}{ending or 'th'}"


def spent_shares(study: Study, records: Sequence[RunRecord]) -> list[float]:
    """Return how far above its budget each run spent, as a share of it."""
    return [
        one.train_flops[study.convention] / one.config.budget_flops - 1
        for one in records
        if one.config.budget_flops
    ]


def heldout_tokens(records: Sequence[RunRecord]) -> list[int]:
    """Return how many tokens of the test split losses are over."""
    return [e.tokens for one in records for e in one.evaluations if e.split == "test"]


def trained_sizes(analysis: Analysis) -> Iterator[str]:
    """Yield for each variant which sizes were trained."""
    for name in analysis.names:
        rows = analysis.table
        rows = rows[(rows["variant"] == name) & (rows["state"] == "finished")]
        if rows.empty:
            yield f"{name}: none has finished."
            continue
        per_budget = rows.groupby("budget_flops")["parameters"].nunique().tolist()
        yield (
            f"{name}: {spanned(rows['parameters'].tolist(), count)} parameters, "
            f"{spanned(rows['blocks'].tolist(), str)} blocks of width "
            f"{spanned(rows['width'].tolist(), str)}, {spanned(per_budget, str)} sizes per budget, "
            f"{spanned((rows['tokens'] / rows['parameters']).tolist(), count)} tokens per "
            "parameter."
        )


def named_sizes(analysis: ScalingAnalysis) -> Iterator[str]:
    """Yield the sizes of a scaling study that were trained."""
    done = analysis.table[analysis.table["state"] == "finished"]
    sizes = done.drop_duplicates("non_embedding").sort_values("non_embedding")
    for row in sizes.to_dict("records"):
        yield (
            f"{row['blocks']} blocks of width {row['width']}: N {count(row['non_embedding'])}, "
            f"{count(row['tokens'])} tokens"
        )


def tokens_per_step(records: Sequence[RunRecord]) -> str:
    """Return the batch, budget by budget where it differs."""
    found = sorted(
        {(one.config.budget_flops or 0.0, one.config.tokens_per_step) for one in records}
    )
    if len({tokens for _, tokens in found}) > 1:
        return ", ".join(f"{tokens:,} at {scientific(budget)} FLOPs" for budget, tokens in found)
    return f"{found[0][1]:,}" if found else ""


def trials(study: Study, search: RecipeSearch) -> tuple[str, ...]:
    """Return how many trials of the recipe finished, by variant."""
    made = {name: (search.finished.get(name, 0), n) for name, n in search.declared.items()}
    return by_variant(study, made, lambda done: f"{done[0]} of {plural(done[1], 'trial')} finished")


def all_finished(search: RecipeSearch) -> bool:
    """Return whether every declared trial has a loss."""
    return all(search.finished.get(name, 0) == n for name, n in search.declared.items())


def model_of(check: RateCheck) -> str:
    """Return in words where learning rates were checked."""
    return f"{check.variant} at {scientific(check.budget_flops)} FLOPs"


def rates_at_edge(checks: Sequence[RateCheck]) -> list[str]:
    """Return the models whose best learning rate is not between two worse ones."""
    return [model_of(check) for check in checks if not check.interior]


def other_rates(checks: Sequence[RateCheck]) -> Iterator[str]:
    """Yield the models whose best learning rate is not the one used."""
    for check in checks:
        if check.best == check.used:
            continue
        apart, interval = check.used_above_best
        told = f"{model_of(check)}, where {check.best:.3g} is best and the rate used"
        ends = f" {interval.interval_words('+.4f')}" if interval else ""
        yield f"{told} diverged" if apart is None else f"{told} {apart:+.4f}{ends} above it"


def fitted_runs(analysis: Analysis) -> int:
    """Return how many runs are behind the fits."""
    table = analysis.table
    return int(table.loc[table["state"] == "finished", "on_ladder"].sum())


def excluded(analysis: Analysis) -> list[str]:
    """Return which runs no fit uses, and why."""
    table, evidence = analysis.table, analysis.evidence
    reasons: Mapping[str, list[str]] = defaultdict(list)
    for record in evidence.records:
        if record.state != "finished":
            reasons[record.state].append(record.reason or "no reason was recorded")
    lines = [
        f"{plural(len(found), 'run')} {state}: "
        + "; ".join(f"{reason} ({n})" for reason, n in Counter(found).most_common())
        for state, found in sorted(reasons.items())
    ]
    if evidence.missing:
        lines.append(f"{plural(len(evidence.missing), 'run')} without a record yet.")
    off = int((~table.loc[table["state"] == "finished", "on_ladder"]).sum())
    if off:
        lines.append(
            f"{plural(off, 'run')} in a shape of the baseline's: shown, but not fitted, since its "
            "proportions are not of its variant's family."
        )
    beside = len(analysis.records) - len(table)
    if beside:
        lines.append(
            f"{plural(beside, 'run')} beside a minimum, at another learning rate or with another "
            "order of the data: they check the minimum and are not fitted."
        )
    return lines


def scaling_excluded(analysis: ScalingAnalysis) -> list[str]:
    """Return which runs no fit uses, by what became of them."""
    evidence, states = analysis.evidence, Counter(analysis.table["state"])
    states.pop("finished", 0)
    lines = [f"{plural(number, 'run')} {state}." for state, number in sorted(states.items())]
    if evidence.missing:
        lines.append(f"{plural(len(evidence.missing), 'run')} without a record yet.")
    beside = len(evidence.records) - len(analysis.table)
    if beside:
        lines.append(
            f"{plural(beside, 'run')} at other learning rates: they check the recipe only."
        )
    return lines


def refused_minima(analysis: Analysis) -> list[str]:
    """Return which minima were refused, by which estimator, and why."""
    return [
        f"{one.variant} at {scientific(result.budget_flops)} FLOPs, {name.replace('_', ' ')}: "
        f"{one.status.replace('_', ' ')} ({one.message})"
        for result in analysis.budgets
        for (_, name), one in result.minima.items()
        if one.loss is None
    ]


def fitted_surfaces(analysis: Analysis) -> list[tuple[str, FittedSurface]]:
    """Return the surfaces of each variant, by either method."""
    return [
        (name, surface)
        for name, fit in analysis.variant_fits.items()
        for surface in (fit.surface, fit.variable_projection)
        if surface is not None
    ]


def delta_lines(surfaces: Sequence[tuple[str, FittedSurface]]) -> list[str]:
    """Return what other deltas of the Huber loss make of alpha."""
    return [
        f"{name}: alpha {fit.alpha.value:.3g} at {fit.delta:g}, "
        + ", ".join(
            f"{other.alpha:.3g} at {delta}" for delta, other in fit.delta_sensitivity.items()
        )
        + "."
        for name, fit in surfaces
        if fit.alpha is not None and fit.delta is not None and fit.delta_sensitivity
    ]


def envelopes(analysis: Analysis) -> list[tuple[str, EnvelopeFit]]:
    """Return what the envelope of the training curves says of each variant."""
    found = analysis.fits.variants if analysis.fits else {}
    return [(name, fit.envelope) for name, fit in found.items() if fit.envelope is not None]


def surface_draws(surfaces: Sequence[tuple[str, FittedSurface]]) -> list[str]:
    """Return what the intervals of the surfaces are by."""
    return sorted({DRAWS_WORDS[fit.source] for _, fit in surfaces if fit.source})


def noise_words(analysis: Analysis) -> list[str]:
    """Return which noise the intervals hold."""
    found = {n.source for fit in analysis.variant_fits.values() for n in fit.noise.values()}
    return [text for source, text in NOISE.items() if source in found]


def disagreements(analysis: Analysis) -> list[MinimumDisagreement]:
    """Return how far estimators disagree on each curve."""
    fits = analysis.variant_fits.values()
    return [one for fit in fits for one in fit.minimum_disagreements]


def all_gaps(analysis: ScalingAnalysis) -> list[SpanGap]:
    """Return the gaps of a scaling study, means over sizes."""
    return [gap for name in analysis.challengers for gap in analysis.mean_gaps(name).values()]


def error_sources(gaps: Sequence[SpanGap]) -> list[str]:
    """Return what else might have been drawn, that the intervals of gaps hold."""
    known = {
        "other seeds": any(one.seed_error is not None for one in gaps),
        "other documents": any(one.document_error is not None for one in gaps),
    }
    return [words for words, found in known.items() if found]


def fitted_records(analysis: Studied) -> list[RunRecord]:
    """Return the records that figures show, checks left out."""
    fitted = set(analysis.table["run_id"])
    return [one for one in analysis.evidence.records if one.run_id in fitted]


def runs_sha256(analysis: Studied) -> str:
    """Return the SHA-256 of the table of runs that is beside the page."""
    return hashlib.sha256(table_text(analysis.runs_table()).encode()).hexdigest()


def deciders(study: Study) -> dict[str, str]:
    """Return by which causal decision each variant is measured."""
    return {one.name: decisions(one.depth)[0].replace("_", " ") for one in study.variants}


def lowered(words: str) -> str:
    """Return words as they stand within a sentence."""
    return words[:1].lower() + words[1:]
