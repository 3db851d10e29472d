"""Answers about the models and how they were trained, and how that was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.config import (
    BlockAttention,
    EveryToken,
    FullAttention,
    PrecisionChoice,
    RandomK,
    RecipeSettings,
    RunRecord,
    Study,
    TopK,
    Variant,
)
from isoflop.fit.checks import RateCheck
from isoflop.notation import count, percent, scientific
from isoflop.report.analysis import Analysis
from isoflop.report.disclosure import Disclosure, Evidence, Topic, by_variant, plural, spanned


def models(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return which architectures were trained, and at which sizes."""
    study = analysis.study
    sizes = tuple(_trained_sizes(analysis, variant) for variant in study.variants)
    grid = study.grid
    chosen = f"{plural(grid.sizes, 'size')} per variant and budget"
    if grid.sizes > 1:
        chosen += f", neighbours a factor of {grid.factor:g} apart"
    if grid.added_at_most:
        chosen += (
            f", then up to {grid.added_at_most} more until {grid.margin} lie on either side of the "
            "lowest validation loss"
        )
    chosen += "."
    if study.matched_shapes and study.challenger_variant is not None:
        chosen += (
            f" {study.challenger_variant.name} is also trained in the shapes of the optimal "
            "baseline and of one about twice its size."
        )
    return Topic(
        "Models",
        (
            Disclosure(
                "Which architecture has each variant?",
                (
                    "Decoders with pre-norm RMSNorm, rotary positions and no biases.",
                    *(f"{one.name}: {architecture(study, one)}" for one in study.variants),
                ),
            ),
            Disclosure(
                "Which sizes were trained?", sizes, "disclosed" if any(sizes) else "missing"
            ),
            Disclosure("How were the sizes chosen?", (chosen,)),
        ),
    )


def training(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return how the models were trained, and how that was chosen."""
    study = analysis.study
    return Topic(
        "Training",
        (
            *recipe(study, evidence),
            Disclosure(
                "Which batch?",
                (
                    f"{_tokens_per_step(study, evidence.records)} tokens per step, the same for "
                    "every variant and size at a budget.",
                ),
                "disclosed" if evidence.records else "missing",
            ),
            Disclosure("Which seeds?", (_seeds(study),)),
            trials(study, evidence),
            _rate_checks(analysis),
        ),
    )


def recipe(study: Study, evidence: Evidence) -> tuple[Disclosure, ...]:
    """Return what is the same for all models: optimiser, rates, schedule, initialisation."""
    recipe = study.recipe
    rates = study.learning_rates()
    reference = f"{recipe.reference_blocks} blocks of width {recipe.reference_width}"
    return (
        Disclosure("Which optimiser, with which settings?", (_optimiser(recipe),)),
        Disclosure(
            "Which learning rates?",
            (
                *by_variant(study, rates, lambda rate: f"peak {rate:g}"),
                f"These are rates at the reference shape, {reference}; the maximal update "
                "parametrisation with CompleteP's depth rule carries them to other shapes.",
            ),
        ),
        Disclosure(
            "Which schedule?",
            (
                f"Linear warm-up over {percent(recipe.warmup_fraction, 0)} of the steps, then "
                f"a cosine to {percent(recipe.final_fraction, 0)} of the peak at the last "
                "step of each run, whatever its length.",
            ),
        ),
        Disclosure(
            "How were models initialised, in which precision?",
            (
                "Hidden matrices with variance 1 / fan-in, embeddings with standard deviation "
                f"{recipe.embedding_scale:g}, routers with {recipe.router_scale:g} at the "
                f"reference width; trained in {recipe.precision}.",
                *_chosen_by(evidence.precision),
            ),
        ),
    )


def _chosen_by(choice: PrecisionChoice | None) -> tuple[str, ...]:
    if choice is None:
        return ()
    return (
        "The precision is what was faster where the study was started first: "
        f"{choice.figures} ({choice.place}, torch {choice.torch}).",
    )


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
    match variant.attention:
        case FullAttention():
            attention = "full attention"
        case BlockAttention() as blocks:
            attention = f"block attention ({blocks.described})"
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


def _trained_sizes(analysis: Analysis, variant: Variant) -> str:
    rows = analysis.table
    rows = rows[(rows["variant"] == variant.name) & (rows["state"] == "finished")]
    if rows.empty:
        return f"{variant.name}: none has finished."
    per_budget = rows.groupby("budget_flops")["parameters"].nunique().tolist()
    return (
        f"{variant.name}: {spanned(rows['parameters'].tolist(), count)} parameters, "
        f"{spanned(rows['blocks'].tolist(), str)} blocks of width "
        f"{spanned(rows['width'].tolist(), str)}, {spanned(per_budget, str)} sizes per budget, "
        f"{spanned((rows['tokens'] / rows['parameters']).tolist(), count)} tokens per parameter."
    )


def _optimiser(recipe: RecipeSettings) -> str:
    text = (
        f"AdamW, betas {recipe.beta1:g} and {recipe.beta2:g}, epsilon {recipe.epsilon:g}, weight "
        f"decay {recipe.weight_decay:g}, gradient norm clipped at {recipe.gradient_clip:g}"
    )
    if recipe.router_rate != 1:
        text += f", routers at {recipe.router_rate:g} times the rate of the hidden matrices"
    return text + "."


def _seeds(study: Study) -> str:
    where = "at every size" if study.replicate == "all" else "near each minimum"
    text = ", ".join(map(str, study.seeds))
    if len(study.seeds) > 1:
        text += f"; those after the first {where}"
    orders = ", ".join(map(str, study.data_orders))
    also = f" At minima each seed is also trained with the data orders {orders}." if orders else ""
    return f"{text}. A seed decides the initialisation and the order of the data.{also}"


def trials(study: Study, evidence: Evidence) -> Disclosure:
    """Return how many trials the recipe was chosen from."""
    question = "How was the recipe chosen, with how many trials per variant?"
    search = evidence.search
    if study.search is None or search is None:
        return Disclosure(
            question,
            ("The study declares no search, so the trials are not known here.",),
            "missing",
        )
    asked = study.search
    lines = [
        "Learning rates "
        + ", ".join(f"{rate:g}" for rate in asked.learning_rates)
        + " with width over blocks "
        + ", ".join(f"{ratio:g}" for ratio in asked.width_per_block)
        + f", {plural(len(asked.seeds), 'seed')} each, at "
        + f"{scientific(asked.budget_flops or study.budgets_flops[0])} FLOPs, by validation loss.",
        *by_variant(
            study,
            {
                name: (search.finished.get(name, 0), declared)
                for name, declared in search.declared.items()
            },
            lambda done: f"{done[0]} of {plural(done[1], 'trial')} finished",
        ),
    ]
    if search.further_runs:
        lines.append(
            f"{plural(search.further_runs, 'recorded run')} of trials that were declared before "
            "and dropped."
        )
    complete = all(search.finished.get(name, 0) == n for name, n in search.declared.items())
    return Disclosure(question, tuple(lines), "disclosed" if complete else "missing")


def _rate_checks(analysis: Analysis) -> Disclosure:
    question = "Were other learning rates tried at the minima?"
    checked = analysis.rates
    if not checked:
        return Disclosure(question, ("No.",), "missing")
    at_edge = [_model_of(one) for one in checked if not one.interior]
    lines = [
        f"At {plural(len(checked), 'minimum').replace('minimums', 'minima')}; the best rate tried "
        "lies between a lower and a higher one that are both worse"
        + (f", but for {', '.join(at_edge)}." if at_edge else " at all of them.")
    ]
    others = [_other_rate(one) for one in checked if one.best != one.used]
    if others:
        lines.append(f"It is the rate used, but for {'; '.join(others)}.")
    return Disclosure(question, tuple(lines))


def _model_of(check: RateCheck) -> str:
    return f"{check.variant} at {scientific(check.budget_flops)} FLOPs"


def _other_rate(check: RateCheck) -> str:
    apart, interval = check.used_above_best
    if apart is None:
        return f"{_model_of(check)}, where {check.best:.3g} is best and the rate used diverged"
    ends = f" {interval.interval_words('+.4f')}" if interval else ""
    return (
        f"{_model_of(check)}, where {check.best:.3g} is best and the rate used {apart:+.4f}{ends} "
        "above it"
    )


def _tokens_per_step(study: Study, records: Sequence[RunRecord]) -> str:
    found = sorted(
        {(record.config.budget_flops or 0.0, record.config.tokens_per_step) for record in records}
    )
    several = len({tokens for _, tokens in found}) > 1
    return ", ".join(
        f"{tokens:,} at {scientific(budget)} FLOPs" if several else f"{tokens:,}"
        for budget, tokens in (found if several else found[:1])
    )
