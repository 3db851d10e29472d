"""What must be told of loss against compute at named sizes, beside what every study tells."""

from __future__ import annotations

from collections import Counter

from isoflop.fit.spans.values import PFLOPS_DAY
from isoflop.notation import count, percent, scientific
from isoflop.report.disclosed_fits import margin
from isoflop.report.disclosed_runs import CONVENTIONS
from isoflop.report.disclosed_training import architecture, recipe, trials
from isoflop.report.disclosure import Disclosure, Evidence, Topic, plural, spanned
from isoflop.report.scaling.analysis import ScalingAnalysis
from isoflop.report.scaling.words import METHOD, listed, refusals


def quantities(analysis: ScalingAnalysis, evidence: Evidence) -> Topic:
    """Return what the numbers on the axes are."""
    window = analysis.study.data.sequence_length
    counts = [
        (one.windows, one.documents)
        for variant in analysis.challengers
        for span in analysis.spans
        if (one := analysis.gap(variant, span)) is not None
    ]
    held = ""
    if counts:
        held = (
            f" Here: {spanned([w for w, _ in counts], '{:,}'.format)} windows of "
            f"{spanned([d for _, d in counts], '{:,}'.format)} documents."
        )
    return Topic(
        "Quantities",
        (
            Disclosure("What is N?", ("Parameters without embeddings.",)),
            Disclosure("What is D?", ("Tokens trained on, repeated ones counted again.",)),
            Disclosure(
                "What is C?",
                (
                    f"PFLOP/s-days of training, {scientific(PFLOPS_DAY, 3)} FLOPs each. As "
                    f"published: {CONVENTIONS['6nd']}, so that every variant of a size has the "
                    f"same. Exact: {CONVENTIONS['causal']}; backward is twice forward, logits "
                    "count.",
                ),
            ),
            Disclosure(
                "What is the loss?",
                (
                    f"Mean negative log-likelihood, {analysis.loss_unit}, on the test split at the "
                    "end of a run's whole schedule. Training curves are training losses, each "
                    "point the mean since the point before.",
                ),
            ),
            Disclosure(
                "What is the loss at a range of positions?",
                (
                    f"The mean over targets at these positions of windows of {window:,} tokens, "
                    "each cut from one document, of the windows that reach the range's end. "
                    f"Position 0 is predicted from one token.{held}",
                ),
            ),
        ),
    )


def models(analysis: ScalingAnalysis, evidence: Evidence) -> Topic:
    """Return which architectures were trained, and at which sizes."""
    study = analysis.study
    done = analysis.table[analysis.table["state"] == "finished"]
    sizes = done.drop_duplicates("non_embedding").sort_values("non_embedding")
    trained = "; ".join(
        f"{blocks} blocks of width {width}: N {count(n)}, {count(tokens)} tokens"
        for blocks, width, n, tokens in zip(
            sizes["blocks"], sizes["width"], sizes["non_embedding"], sizes["tokens"], strict=True
        )
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
                "Which sizes were trained?",
                (f"{trained}." if trained else "None has finished.",),
                "disclosed" if trained else "missing",
            ),
            Disclosure(
                "How were the sizes chosen?",
                ("The study names them, the same for every variant; none is added or dropped.",),
            ),
        ),
    )


def training(analysis: ScalingAnalysis, evidence: Evidence) -> Topic:
    """Return how the models were trained, and how that was chosen."""
    study = analysis.study
    steps = sorted({record.config.tokens_per_step for record in evidence.records})
    checked = [
        f"{one.variant}: {'between two worse ones' if one.interior else 'at an end'}"
        for one in analysis.rates
    ]
    return Topic(
        "Training",
        (
            *recipe(study, evidence),
            Disclosure(
                "Which batch?",
                (
                    f"{spanned(steps, '{:,}'.format)} tokens per step, the same for every variant "
                    "of a size."
                    if steps
                    else "No run has a record.",
                ),
                "disclosed" if steps else "missing",
            ),
            Disclosure(
                "Which seeds?",
                (
                    f"{', '.join(map(str, study.seeds))}, at every size. A seed decides the "
                    "initialisation and the order of the data, alike for every variant.",
                ),
            ),
            trials(study, evidence),
            Disclosure(
                "Were other learning rates tried?",
                (
                    f"At one size, by validation loss; the best rate lies: {'; '.join(checked)}."
                    if checked
                    else "No.",
                ),
                "disclosed" if checked else "missing",
            ),
        ),
    )


def counted_runs(analysis: ScalingAnalysis, evidence: Evidence) -> Topic:
    """Return which runs are behind the fits, and which are not, and why."""
    states = Counter(analysis.table["state"])
    finished = states.pop("finished", 0)
    beside = len(evidence.records) - len(analysis.table)
    out = [f"{plural(number, 'run')} {state}." for state, number in sorted(states.items())]
    if evidence.missing:
        out.append(f"{plural(len(evidence.missing), 'run')} without a record yet.")
    if beside:
        out.append(f"{plural(beside, 'run')} at other learning rates: they check the recipe only.")
    return Topic(
        "Runs",
        (
            Disclosure(
                "How many runs are behind the fits?",
                (f"{plural(finished, 'run')} of {plural(len(evidence.records), 'record')}.",),
                "disclosed" if finished else "missing",
            ),
            Disclosure(
                "Which runs were left out, and why?",
                tuple(out) or ("None: every record is fitted.",),
            ),
        ),
    )


def fits(analysis: ScalingAnalysis, evidence: Evidence) -> Topic:
    """Return what was fitted and compared, how, and what the intervals hold."""
    refused = refusals(analysis)
    gaps = [
        one
        for variant in analysis.challengers
        for span in analysis.spans
        if (one := analysis.gap(variant, span)) is not None
    ]
    seeds = any(one.seed_error is not None for one in gaps)
    documents = any(one.document_error is not None for one in gaps)
    sources = [w for w, known in (("other seeds", seeds), ("other documents", documents)) if known]
    return Topic(
        "Fits and comparisons",
        (
            Disclosure("What was fitted, and how?", (METHOD,)),
            Disclosure("Which fits were refused, and why?", refused or ("None.",)),
            Disclosure(
                "What do the intervals hold?",
                (
                    f"{percent(analysis.level, 0)}: of gaps what {listed(sources)} would give, "
                    "windows of one document taken together; the corpus, the recipe and the sizes "
                    "stay as they are.",
                )
                if sources
                else ("No gap has one.",),
                "disclosed" if sources else "missing",
            ),
            Disclosure(
                "How are variants compared?",
                (
                    "Run by run of the same size and seed, on the same documents; outcomes are "
                    f"those of the mean over sizes, {plural(len(gaps), 'test')}. Better and worse "
                    "are corrected for their number (Holm). Equivalence is not: that it holds "
                    "everywhere needs every test to stand.",
                ),
                "disclosed" if gaps else "not applicable",
            ),
            margin(analysis.study),
        ),
    )
