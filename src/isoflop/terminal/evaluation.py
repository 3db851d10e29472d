"""What `isoflop eval` prints: losses, the leak, and what routing does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType

from isoflop.config import (
    BlockMeasures,
    DecisionMeasures,
    Routed,
    RoutingSample,
    RunConfig,
    RunEvaluation,
    TokenSelection,
)
from isoflop.estimate import NONE, estimate_words
from isoflop.notation import percent
from isoflop.terminal.tables import said, shape, table

BARS = "▁▂▃▄▅▆▇█"
SPACE = "\N{OPEN BOX}"
NAMED = 4
"""Ids at either end that a row names."""
FEW_DOCUMENTS = 10
"""Fewer than these say little of others, and intervals are wide."""


def evaluation_tables(found: RunEvaluation, config: RunConfig) -> Iterator[RenderableType]:
    """Yield what was found out about a run's model.

    Positions and ids are those of the first causal decision, the headline one unless left out.
    """
    yield said(_heading(found, config), "bold")
    rows = found.measures.decisions
    yield table(
        "Held-out loss [95% over documents]",
        {
            "decision": [one.described for one in rows],
            config.data.loss_unit: [estimate_words(one.loss) for one in rows],
            "bits per byte": [estimate_words(one.bits_per_byte) for one in rows],
        },
        words=["decision"],
    )
    if found.documents < FEW_DOCUMENTS:
        read = "This is 1 document, which says"
        if found.documents > 1:
            read = f"These are {found.documents} documents, which say"
        yield said(f"{read} little of others; --tokens reads more of them.")
    sample = found.measures.sample
    if sample is None:
        return
    yield _capacities(rows)
    yield _leaks(rows)
    blocks = [
        ("" if index else one.described, block)
        for one in rows
        for index, block in enumerate(one.blocks)
    ]
    yield _agreements([(name, block) for name, block in blocks if block.agreement is not None])
    yield _entropies(blocks)
    headline = next((one for one in rows if one.decision != "top_k"), rows[0])
    yield _positions(headline)
    yield _tokens(headline, sample, found.token_texts)
    yield said(_never(headline, sample, found.token_texts))


def _heading(found: RunEvaluation, config: RunConfig) -> str:
    depth = config.model.depth
    kind = f", {depth.kind} {percent(depth.capacity)}" if isinstance(depth, Routed) else ""
    evaluation = found.measures.decisions[0].evaluation
    corpus = found.corpus if isinstance(found.corpus, str) else " + ".join(found.corpus)
    return (
        f"Run {found.run_id} ({shape(config.model)}{kind}) on the {evaluation.split} split of "
        f"{corpus}: {evaluation.tokens:,} tokens of {found.documents:,} documents, "
        f"windows of {found.sequence_length:,}"
    )


def _capacities(rows: Sequence[DecisionMeasures]) -> RenderableType:
    def extreme(one: DecisionMeasures, choose: Callable[..., BlockMeasures]) -> str:
        block = choose(one.blocks, key=lambda block: block.realised_capacity)
        return f"{percent(block.realised_capacity)} ({block.block})"

    # Only a model that routes is asked, which has both capacities.
    shares = [(one.realised_capacity or 0.0, one.nominal_capacity or math.nan) for one in rows]
    return table(
        "Share of tokens that routed blocks process",
        {
            "decision": [one.described for one in rows],
            "selected": [percent(realised) for realised, _ in shares],
            "of nominal": [percent(realised / nominal, 0) for realised, nominal in shares],
            "lowest (block)": [extreme(one, min) for one in rows],
            "highest (block)": [extreme(one, max) for one in rows],
        },
        words=["decision"],
    )


def _leaks(rows: Sequence[DecisionMeasures]) -> RenderableType:
    leaks = [one.leak for one in rows]
    futures = [one.future for one in rows]
    return table(
        "What the future gives: loss, and logits that later tokens change",
        {
            "decision": [one.described for one in rows],
            "top-k lower by": [NONE if one is None else estimate_words(one.nats) for one in leaks],
            "of loss": [
                "-" if one is None or one.share is None else percent(one.share.value, 2)
                for one in leaks
            ],
            "changed": ["-" if one is None else _changed(one.changed) for one in futures],
            "by > 1e-3": ["-" if one is None else _changed(one.changed_visibly) for one in futures],
        },
        words=["decision"],
    )


def _agreements(blocks: Sequence[tuple[str, BlockMeasures]]) -> RenderableType:
    found = [(block.agreement, block) for _, block in blocks if block.agreement is not None]
    return table(
        "Agreement with top-k",
        {
            "decision": [name for name, _ in blocks],
            "block": [str(block.block) for _, block in found],
            "accuracy": [percent(one.accuracy) for one, _ in found],
            "precision": [
                "-" if one.precision is None else percent(one.precision) for one, _ in found
            ],
            "recall": [percent(one.recall) for one, _ in found],
            "selected": [percent(block.realised_capacity) for _, block in found],
            "nominal": [percent(block.nominal_capacity) for _, block in found],
        },
        words=["decision"],
    )


def _entropies(blocks: Sequence[tuple[str, BlockMeasures]]) -> RenderableType:
    found = [block.entropy for _, block in blocks]
    return table(
        "Entropy of next-token predictions, nats [95% over documents]",
        {
            "decision": [name for name, _ in blocks],
            "block": [str(block.block) for _, block in blocks],
            "processed": [
                "-" if one.processed is None else f"{one.processed.value:.3f}" for one in found
            ],
            "skipped": [
                "-" if one.skipped is None else f"{one.skipped.value:.3f}" for one in found
            ],
            "difference": [estimate_words(one.difference, ".3f") for one in found],
        },
        words=["decision"],
    )


def _positions(one: DecisionMeasures) -> RenderableType:
    shares = [block.share_by_position for block in one.blocks]
    most = max(map(max, shares), default=0.0)
    return table(
        f"Share selected by position, under {one.decision}",
        {
            "block": [str(block.block) for block in one.blocks],
            "first": [percent(own[0]) for own in shares],
            "last": [percent(own[-1]) for own in shares],
            "lowest": [percent(min(own)) for own in shares],
            "highest": [percent(max(own)) for own in shares],
            "start to end": [_bars(own, most) for own in shares],
        },
        words=["start to end"],
    )


def _tokens(one: DecisionMeasures, sample: RoutingSample, texts: dict[int, str]) -> RenderableType:
    return table(
        f"Share selected of ids that occur at least {sample.minimum_occurrences} times, "
        f"under {one.decision}",
        {
            "block": [str(block.block) for block in one.blocks],
            "never": [
                f"{len(block.never_selected)} of {sample.frequent_ids}" for block in one.blocks
            ],
            "most": [_ids(block.most_selected, texts) for block in one.blocks],
            "least": [_ids(block.least_selected, texts) for block in one.blocks],
        },
        names=["most", "least"],
    )


def _never(one: DecisionMeasures, sample: RoutingSample, texts: dict[int, str]) -> str:
    count = len(one.never_selected)
    named = ", ".join(_text(texts[token]) for token in one.never_selected[:20])
    listed = f": {named}{', ...' if count > 20 else ''}" if count else ""
    return (
        f"Selected by no block at all: {count} of {sample.frequent_ids} ids{listed}. "
        f"Routing is measured on {sample.windows:,} whole windows, {sample.tokens:,} tokens."
    )


def _ids(rows: Sequence[TokenSelection], texts: dict[int, str]) -> str:
    return ", ".join(f"{_text(texts[row.token])}={percent(row.share, 0)}" for row in rows[:NAMED])


def _text(text: str) -> str:
    """Return the text of an id in quotes, its spaces visible and no place to break a line."""
    return f"'{text.replace(' ', SPACE)}'"


def _bars(shares: Sequence[float], most: float) -> str:
    if not most:
        return BARS[0] * len(shares)
    return "".join(BARS[min(len(BARS) - 1, int(share / most * len(BARS)))] for share in shares)


def _changed(share: float) -> str:
    """Return a share so that none at all is told from few."""
    return "none" if share == 0 else percent(share, 2)
