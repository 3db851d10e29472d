"""What `isoflop eval` prints: losses, the leak, and what routing does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.tables import Column, shape, table
from isoflop.config import (
    BlockMeasures,
    DecisionMeasures,
    Routed,
    RoutingSample,
    RunConfig,
    RunEvaluation,
    TokenSelection,
)
from isoflop.estimate import NONE, Estimate, estimate_words
from isoflop.notation import percent
from isoflop.text import quoted

BARS = "▁▂▃▄▅▆▇█"
SPACE = "\N{OPEN BOX}"
NAMED = 4
"""Ids at either end that a row names."""
FEW_DOCUMENTS = 10
"""Fewer than these say little of others, and intervals are wide."""
DECISION = Column("decision", number=False)


def evaluation_tables(found: RunEvaluation, config: RunConfig) -> Iterator[RenderableType]:
    """Yield what was found out about a run's model.

    Positions and ids are those of the first causal decision, the headline one unless left out.
    """
    yield Text(quoted(_heading(found, config)), style="bold")
    rows = found.measures.decisions
    unit = config.data.loss_unit
    yield table(
        "Held-out loss [95% over documents]",
        [DECISION, Column(unit), Column("bits per byte")],
        (
            (one.described, estimate_words(one.loss), estimate_words(one.bits_per_byte))
            for one in rows
        ),
    )
    if found.documents < FEW_DOCUMENTS:
        read = "This is 1 document, which says"
        if found.documents > 1:
            read = f"These are {found.documents} documents, which say"
        yield Text(f"{read} little of others; --tokens reads more of them.")
    sample = found.measures.sample
    if sample is None:
        return
    yield _capacities(rows)
    yield _leaks(rows)
    yield _agreements(rows)
    yield _entropies(rows)
    headline = next((one for one in rows if one.decision != "top_k"), rows[0])
    yield _positions(headline)
    yield _tokens(headline, sample, found.token_texts)
    yield Text(quoted(_never(headline, sample, found.token_texts)))


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
    headings = ("selected", "of nominal", "lowest (block)", "highest (block)")
    return table(
        "Share of tokens that routed blocks process",
        [DECISION, *map(Column, headings)],
        ((one.described, *_capacity(one)) for one in rows),
    )


def _capacity(one: DecisionMeasures) -> Iterator[str]:
    realised, nominal = one.realised_capacity, one.nominal_capacity
    assert realised is not None, "only a model that routes is asked"
    assert nominal is not None
    yield percent(realised)
    yield percent(realised / nominal, 0)
    for extreme in (min, max):
        block = extreme(one.blocks, key=lambda block: block.realised_capacity)
        yield f"{percent(block.realised_capacity)} ({block.block})"


def _leaks(rows: Sequence[DecisionMeasures]) -> RenderableType:
    return table(
        "What the future gives: loss, and logits that later tokens change",
        [
            DECISION,
            Column("top-k lower by"),
            Column("of loss"),
            Column("changed"),
            Column("by > 1e-3"),
        ],
        (
            (
                one.described,
                NONE if one.leak is None else estimate_words(one.leak.nats),
                "-"
                if one.leak is None or one.leak.share is None
                else percent(one.leak.share.value, 2),
                "-" if one.future is None else _changed(one.future.changed),
                "-" if one.future is None else _changed(one.future.changed_visibly),
            )
            for one in rows
        ),
    )


def _agreements(rows: Sequence[DecisionMeasures]) -> RenderableType:
    headings = ("block", "accuracy", "precision", "recall", "selected", "nominal")
    return table(
        "Agreement with top-k",
        [DECISION, *map(Column, headings)],
        (
            (
                name,
                str(block.block),
                percent(block.agreement.accuracy),
                "-" if block.agreement.precision is None else percent(block.agreement.precision),
                percent(block.agreement.recall),
                percent(block.realised_capacity),
                percent(block.nominal_capacity),
            )
            for name, block in _by_block(rows)
            if block.agreement is not None
        ),
    )


def _entropies(rows: Sequence[DecisionMeasures]) -> RenderableType:
    headings = ("block", "processed", "skipped", "difference")
    return table(
        "Entropy of next-token predictions, nats [95% over documents]",
        [DECISION, *map(Column, headings)],
        (
            (
                name,
                str(block.block),
                _value(block.entropy.processed),
                _value(block.entropy.skipped),
                estimate_words(block.entropy.difference, ".3f"),
            )
            for name, block in _by_block(rows)
        ),
    )


def _positions(one: DecisionMeasures) -> RenderableType:
    most = max((max(block.share_by_position) for block in one.blocks), default=0.0)
    return table(
        f"Share selected by position, under {one.decision}",
        [
            *map(Column, ("block", "first", "last", "lowest", "highest")),
            Column("start to end", number=False),
        ],
        (
            (
                str(block.block),
                *(
                    percent(share)
                    for share in (
                        block.share_by_position[0],
                        block.share_by_position[-1],
                        min(block.share_by_position),
                        max(block.share_by_position),
                    )
                ),
                _bars(block.share_by_position, most),
            )
            for block in one.blocks
        ),
    )


def _tokens(one: DecisionMeasures, sample: RoutingSample, texts: dict[int, str]) -> RenderableType:
    return table(
        f"Share selected of ids that occur at least {sample.minimum_occurrences} times, "
        f"under {one.decision}",
        [
            Column("block"),
            Column("never"),
            Column("most", wraps=True, number=False),
            Column("least", wraps=True, number=False),
        ],
        (
            (
                str(block.block),
                f"{len(block.never_selected)} of {sample.frequent_ids}",
                _ids(block.most_selected, texts),
                _ids(block.least_selected, texts),
            )
            for block in one.blocks
        ),
    )


def _never(one: DecisionMeasures, sample: RoutingSample, texts: dict[int, str]) -> str:
    count = len(one.never_selected)
    named = ", ".join(_text(texts[token]) for token in one.never_selected[:20])
    listed = f": {named}{', ...' if count > 20 else ''}" if count else ""
    return (
        f"Selected by no block at all: {count} of {sample.frequent_ids} ids{listed}. "
        f"Routing is measured on {sample.windows:,} whole windows, {sample.tokens:,} tokens."
    )


def _by_block(rows: Iterable[DecisionMeasures]) -> Iterator[tuple[str, BlockMeasures]]:
    for one in rows:
        for index, block in enumerate(one.blocks):
            yield "" if index else one.described, block


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


def _value(one: Estimate | None, digits: int = 3) -> str:
    return "-" if one is None else f"{one.value:.{digits}f}"
