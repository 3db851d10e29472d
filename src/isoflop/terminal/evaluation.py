"""What `isoflop eval` prints: losses, the leak, and what routing does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType

from isoflop.config import (
    BlockMeasures,
    DecisionMeasures,
    Leak,
    Routed,
    RoutingSample,
    RunConfig,
    RunEvaluation,
    TaskScore,
    TaskScores,
    TokenSelection,
)
from isoflop.estimate import NONE, Estimate, estimate_words
from isoflop.notation import percent
from isoflop.terminal.tables import Cells, said, shape, table, told

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
    losses: Cells[DecisionMeasures] = {
        "decision": lambda one: one.described,
        config.data.loss_unit: lambda one: estimate_words(one.loss),
        "bits per byte": lambda one: estimate_words(one.bits_per_byte),
    }
    yield table("Held-out loss [95% over documents]", rows, losses, words=["decision"])
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
    yield _agreements(blocks)
    yield _entropies(blocks)
    headline = next((one for one in rows if one.decision != "top_k"), rows[0])
    yield _positions(headline)
    yield _tokens(headline, sample, found.token_texts)
    yield said(_never(headline, sample, found.token_texts))


def scores_table(found: TaskScores) -> RenderableType:
    """Return the scores of a model in tasks, with their standard errors over samples."""
    cells: Cells[TaskScore] = {
        "task": lambda one: one.task,
        "metric": lambda one: one.metric + f" ({one.filter})" * (one.filter != "none"),
        "score": lambda one: f"{one.value:.4f}",
        "error": lambda one: told(one.error, "{:.4f}"),
        "samples": lambda one: told(one.samples, "{:,}"),
        "shots": lambda one: told(one.shots, str),
        "decision": lambda one: one.decision,
    }
    title = f"{found.run_id} in tasks of lm-eval {found.lm_eval}, standard errors over samples"
    return table(title, found.scores, cells, words=["task", "metric", "decision"])


def _heading(found: RunEvaluation, config: RunConfig) -> str:
    depth = config.model.depth
    kind = f", {depth.kind} {percent(depth.capacity)}" if isinstance(depth, Routed) else ""
    evaluation = found.measures.decisions[0].evaluation
    corpus = found.corpus if isinstance(found.corpus, str) else " + ".join(found.corpus)
    return (
        f"{found.run_id} ({shape(config.model)}{kind}) on the {evaluation.split} split of "
        f"{corpus}: {evaluation.tokens:,} tokens of {found.documents:,} documents, "
        f"windows of {found.sequence_length:,}"
    )


def _capacities(rows: Sequence[DecisionMeasures]) -> RenderableType:
    def extreme(one: DecisionMeasures, choose: Callable[..., BlockMeasures]) -> str:
        block = choose(one.blocks, key=lambda block: block.realised_capacity)
        return f"{percent(block.realised_capacity)} ({block.block})"

    # Only a model that routes is asked, which has both capacities.
    def share(one: DecisionMeasures) -> float:
        return (one.realised_capacity or 0.0) / (one.nominal_capacity or math.nan)

    cells: Cells[DecisionMeasures] = {
        "decision": lambda one: one.described,
        "selected": lambda one: percent(one.realised_capacity or 0.0),
        "of nominal": lambda one: percent(share(one), 0),
        "lowest (block)": lambda one: extreme(one, min),
        "highest (block)": lambda one: extreme(one, max),
    }
    return table("Share of tokens that routed blocks process", rows, cells, words=["decision"])


def _leaks(rows: Sequence[DecisionMeasures]) -> RenderableType:
    def of_loss(leak: Leak | None) -> str:
        return NONE if leak is None or leak.share is None else percent(leak.share.value, 2)

    def changed(share: float | None) -> str:
        """Return a share so that none at all is told from few."""
        return "none" if share == 0 else told(share, lambda share: percent(share, 2))

    cells: Cells[DecisionMeasures] = {
        "decision": lambda one: one.described,
        "top-k lower by": lambda one: estimate_words(one.leak.nats) if one.leak else NONE,
        "of loss": lambda one: of_loss(one.leak),
        "changed": lambda one: changed(getattr(one.future, "changed", None)),
        "by > 1e-3": lambda one: changed(getattr(one.future, "changed_visibly", None)),
    }
    title = "What the future gives: loss, and logits that later tokens change"
    return table(title, rows, cells, words=["decision"])


OF_BLOCK: Cells[tuple[str, BlockMeasures]] = {
    "decision": lambda row: row[0],
    "block": lambda row: str(row[1].block),
}


def _agreements(blocks: Sequence[tuple[str, BlockMeasures]]) -> RenderableType:
    def of(name: str) -> Callable[[tuple[str, BlockMeasures]], str]:
        return lambda row: told(getattr(row[1].agreement, name), percent)

    cells: Cells[tuple[str, BlockMeasures]] = {
        **OF_BLOCK,
        **{name: of(name) for name in ("accuracy", "precision", "recall")},
        "selected": lambda row: percent(row[1].realised_capacity),
        "nominal": lambda row: percent(row[1].nominal_capacity),
    }
    found = [row for row in blocks if row[1].agreement is not None]
    return table("Agreement with top-k", found, cells, words=["decision"])


def _entropies(blocks: Sequence[tuple[str, BlockMeasures]]) -> RenderableType:
    def value(one: Estimate | None) -> str:
        return NONE if one is None else f"{one.value:.3f}"

    cells: Cells[tuple[str, BlockMeasures]] = {
        **OF_BLOCK,
        "processed": lambda row: value(row[1].entropy.processed),
        "skipped": lambda row: value(row[1].entropy.skipped),
        "difference": lambda row: estimate_words(row[1].entropy.difference, ".3f"),
    }
    title = "Entropy of next-token predictions, nats [95% over documents]"
    return table(title, blocks, cells, words=["decision"])


def _positions(one: DecisionMeasures) -> RenderableType:
    most = max((max(block.share_by_position) for block in one.blocks), default=0.0)

    def share(of: Callable[[Sequence[float]], float]) -> Callable[[BlockMeasures], str]:
        return lambda block: percent(of(block.share_by_position))

    cells: Cells[BlockMeasures] = {
        "block": lambda block: str(block.block),
        "first": share(lambda shares: shares[0]),
        "last": share(lambda shares: shares[-1]),
        "lowest": share(min),
        "highest": share(max),
        "start to end": lambda block: _bars(block.share_by_position, most),
    }
    title = f"Share selected by position, under {one.decision}"
    return table(title, one.blocks, cells, words=["start to end"])


def _tokens(one: DecisionMeasures, sample: RoutingSample, texts: dict[int, str]) -> RenderableType:
    def ids(rows: Sequence[TokenSelection]) -> str:
        named = (f"{_text(texts[row.token])}={percent(row.share, 0)}" for row in rows[:NAMED])
        return ", ".join(named)

    cells: Cells[BlockMeasures] = {
        "block": lambda block: str(block.block),
        "never": lambda block: f"{len(block.never_selected)} of {sample.frequent_ids}",
        "most": lambda block: ids(block.most_selected),
        "least": lambda block: ids(block.least_selected),
    }
    title = f"Share selected of ids that occur at least {sample.minimum_occurrences} times, under "
    return table(title + one.decision, one.blocks, cells, names=["most", "least"])


def _never(one: DecisionMeasures, sample: RoutingSample, texts: dict[int, str]) -> str:
    count = len(one.never_selected)
    named = ", ".join(_text(texts[token]) for token in one.never_selected[:20])
    listed = f": {named}{', ...' if count > 20 else ''}" if count else ""
    return (
        f"Selected by no block at all: {count} of {sample.frequent_ids} ids{listed}. "
        f"Routing is measured on {sample.windows:,} whole windows, {sample.tokens:,} tokens."
    )


def _text(text: str) -> str:
    """Return the text of an id in quotes, its spaces visible and no place to break a line."""
    return f"'{text.replace(' ', SPACE)}'"


def _bars(shares: Sequence[float], most: float) -> str:
    heights = (int(share / (most or 1.0) * len(BARS)) for share in shares)
    return "".join(BARS[min(len(BARS) - 1, height)] for height in heights)
