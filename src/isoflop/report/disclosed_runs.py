"""Answers about what was trained: quantities, models, recipe, data, and which runs count."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from isoflop.config import (
    EveryToken,
    RandomK,
    Recipe,
    RunRecord,
    Study,
    TopK,
    Variant,
    decisions,
)
from isoflop.report.analysis import Analysis
from isoflop.report.disclosure import Disclosure, Evidence, Topic, by_variant, plural, spanned
from isoflop.report.notation import count, percent, scientific

CONVENTIONS = {
    "causal": "exact closed forms; each query is charged for the keys it may attend",
    "full": "exact closed forms; attention is charged for the whole square of T by T",
    "6nd": "6 N D with N the non-embedding parameters",
}


def quantities(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return what the numbers on the axes are."""
    study = analysis.study
    every = "" if study.convention == "6nd" else "; router, decision head and logits count"
    spent = [
        record.train_flops[study.convention] / record.config.budget_flops - 1
        for record in evidence.records
        if record.config.budget_flops
    ]
    near = f"Runs spent {_signed(min(spent))} to {_signed(max(spent))} of it." if spent else ""
    heldout = {
        one.tokens
        for record in evidence.records
        for one in record.evaluations
        if one.split == "test"
    }
    deciders = {v.name: decisions(v.depth)[0].replace("_", " ") for v in study.variants}
    return Topic(
        "Quantities",
        (
            Disclosure(
                "What is N?",
                (
                    "Total parameters, embeddings included: the axis of every figure, and the N of "
                    "every fit. Only the convention '6nd' of C counts non-embedding parameters.",
                ),
            ),
            Disclosure("What is D?", ("Tokens trained on, repeated ones counted again.",)),
            Disclosure(
                "What is C?",
                (
                    f"Training FLOPs, convention '{study.convention}': "
                    f"{CONVENTIONS[study.convention]}; backward is twice forward{every}.",
                    f"Every run is given one of the budgets. {near}".strip(),
                ),
            ),
            Disclosure(
                "What is the loss?",
                (
                    f"Mean negative log-likelihood, {analysis.loss_unit}, on the test split"
                    + (f", over {spanned(list(heldout), count)} tokens" if heldout else "")
                    + ", at the end of a run's whole schedule; no checkpoint on the way is used.",
                    "Which tokens a routed block processes is decided causally, by a rule fixed "
                    "beforehand: " + "; ".join(by_variant(study, deciders)) + ".",
                ),
            ),
        ),
    )


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
                    *(f"{one.name}: {_architecture(study, one)}" for one in study.variants),
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
    recipe = study.recipe
    rates = {v.name: v.learning_rate or recipe.learning_rate for v in study.variants}
    reference = f"{recipe.reference_blocks} blocks of width {recipe.reference_width}"
    return Topic(
        "Training",
        (
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
                "Which batch?",
                (
                    f"{_tokens_per_step(study, evidence.records)} tokens per step, the same for "
                    "every variant and size at a budget.",
                ),
                "disclosed" if evidence.records else "missing",
            ),
            Disclosure(
                "How were models initialised, in which precision?",
                (
                    "Hidden matrices with variance 1 / fan-in, embeddings with standard deviation "
                    f"{recipe.embedding_scale:g}, routers with {recipe.router_scale:g} at the "
                    f"reference width; trained in {recipe.precision}.",
                ),
            ),
            Disclosure("Which seeds?", (_seeds(study),)),
            _trials(study, evidence),
            _rate_checks(analysis),
        ),
    )


def data(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return what was trained and evaluated on."""
    chosen = analysis.study.data
    hashes = sorted({record.data_sha256 for record in evidence.records})
    return Topic(
        "Data",
        (
            Disclosure("Which corpus?", (", ".join(chosen.corpora),)),
            Disclosure(
                "Exactly which tokens?",
                (f"SHA-256 {', '.join(hashes)}",) if hashes else ("No run has a record.",),
                "disclosed" if hashes else "missing",
            ),
            Disclosure(
                "Which tokeniser?",
                (
                    f"{chosen.tokenizer}, {chosen.vocabulary:,} token ids, sequences of "
                    f"{chosen.sequence_length:,}",
                ),
            ),
            Disclosure(
                "Which splits?",
                (
                    f"By document: {chosen.validation_fraction:.0%} validation, "
                    f"{chosen.test_fraction:.0%} test, the rest training. The recipe and the sizes "
                    "that are added are chosen on validation; every loss that is compared is on "
                    "test.",
                ),
            ),
            _epochs(evidence),
        ),
    )


def counted_runs(analysis: Analysis, evidence: Evidence) -> Topic:
    """Return which runs are behind the fits, and which are not, and why."""
    table = analysis.table
    finished = table[table["state"] == "finished"]
    on_ladder = int(finished["on_ladder"].sum())
    used = f"{plural(on_ladder, 'run')} of {plural(len(evidence.records), 'record')}"
    if on_ladder < len(evidence.records) or evidence.missing:
        used += "; the others are below"
    out = _excluded(analysis, evidence)
    refused = [
        f"{one.variant} at {scientific(result.budget_flops)} FLOPs, {name.replace('_', ' ')}: "
        f"{one.minimum.status.replace('_', ' ')} ({one.minimum.message})"
        for result in analysis.budgets
        for (_, name), one in result.minima.items()
        if one.minimum.loss is None
    ]
    return Topic(
        "Runs",
        (
            Disclosure(
                "How many runs are behind the fits?",
                (f"{used}.",),
                "disclosed" if on_ladder else "missing",
            ),
            Disclosure(
                "Which runs were left out, and why?",
                out or ("None: every record is fitted.",),
            ),
            Disclosure(
                "Which minima were refused, and why?",
                tuple(refused) or ("None.",),
                "disclosed" if analysis.budgets else "not applicable",
            ),
        ),
    )


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}%"


def _architecture(study: Study, variant: Variant) -> str:
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
    parts = [
        f"{variant.attention.kind} attention",
        depth,
        f"{variant.feed_forward.kind} feed-forward, {family.hidden_per_width:.3g} times as wide",
        f"width {family.width_per_block:g} times the blocks",
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


def _optimiser(recipe: Recipe) -> str:
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


def _trials(study: Study, evidence: Evidence) -> Disclosure:
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
    others = [
        f"{one.variant} at {scientific(one.budget_flops)} FLOPs"
        for one in checked
        if not one.interior
    ]
    text = f"At {plural(len(checked), 'minimum').replace('minimums', 'minima')}; the rate used "
    text += "lies between a lower and a higher one that are both worse"
    return Disclosure(
        question,
        (f"{text}, but for {', '.join(others)}." if others else f"{text} at all of them.",),
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


def _epochs(evidence: Evidence) -> Disclosure:
    question = "How often was the corpus gone through?"
    tokens = [record.config.tokens for record in evidence.records]
    if not tokens or evidence.train_tokens is None:
        return Disclosure(
            question,
            (
                "The size of the training split is not known where this page was made.",
                f"Runs saw {spanned(tokens, count)} tokens." if tokens else "",
            ),
            "missing",
        )
    most = max(tokens) / evidence.train_tokens
    return Disclosure(
        question,
        (
            f"Runs saw {spanned(tokens, count)} of {count(evidence.train_tokens)} tokens: "
            f"{most:.2f} times the training split at most.",
        ),
    )


def _excluded(analysis: Analysis, evidence: Evidence) -> tuple[str, ...]:
    table = analysis.table
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
    return tuple(lines)
