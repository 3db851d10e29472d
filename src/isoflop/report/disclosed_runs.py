"""Answers about what is measured, on which data, and which runs count."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from isoflop.config import (
    decisions,
)
from isoflop.notation import count, scientific
from isoflop.report.analysis import Analysis
from isoflop.report.disclosure import (
    Disclosure,
    Evidence,
    Measured,
    Topic,
    by_variant,
    plural,
    spanned,
)

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


def data(analysis: Measured, evidence: Evidence) -> Topic:
    """Return what was trained and evaluated on."""
    chosen = analysis.study.data
    hashes = sorted({record.data_sha256 for record in evidence.records})
    tuned = "The recipe and the sizes that are added are"
    if analysis.study.scaling is not None:
        tuned = "The recipe is"
    windows = (
        "; each cut from a single document, and documents shorter than one left out of training"
        if chosen.windows == "documents"
        else ""
    )
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
                    f"{chosen.sequence_length:,}{windows}",
                ),
            ),
            Disclosure(
                "Which splits?",
                (
                    f"By document: {chosen.validation_fraction:.0%} validation, "
                    f"{chosen.test_fraction:.0%} test, the rest training. {tuned} chosen on "
                    "validation; every loss that is compared is on test.",
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
