"""What was measured: rows, paired ratios and verdicts, and how they read in a terminal."""

from __future__ import annotations

from isoflop.bench.cases import Case, Implementation
from isoflop.config import Frozen, Precision


class BenchRow(Frozen):
    """The measured training step of one contender."""

    group: int
    """Contenders of a group took turns; ratios exist within a group only."""
    variant: str
    implementation: Implementation
    compiled: bool
    parameters: int
    """Total parameters."""
    convention: str
    """How FLOPs are counted."""
    flops_per_step: float
    step_seconds: float
    """Median over the rounds."""
    steps_per_second: float
    achieved_flops: float
    """FLOP/s of the step."""
    peak_flops: float
    """FLOP/s of the best matrix product with the same dtype and threads."""
    width: int
    blocks: int
    heads: int
    sequence_length: int
    sequences_per_step: int
    vocabulary: int
    dtype: Precision
    threads: int
    rounds: int
    """Turns that every contender of the group had."""

    @property
    def name(self) -> str:
        """The contender in words."""
        return contender(self.variant, self.implementation, compiled=self.compiled)


class Ratio(Frozen):
    """How many times as fast a contender's step is as the first of its group: over rounds."""

    group: int
    name: str
    reference: str
    """The group's first contender."""
    speed_ratio: float
    """Step time of `reference` over that of `name`: the median over rounds."""
    low: float
    """Lower quartile over rounds."""
    high: float
    """Upper quartile over rounds."""


class Verdict(Frozen):
    """A bar, what was measured against it, and whether it holds."""

    group: int
    claim: str
    measured: float
    expected: float
    """Least value of `measured` at which the claim holds."""

    @property
    def held(self) -> bool:
        """Whether the bar is reached."""
        return self.measured >= self.expected


class BenchReport(Frozen):
    """Everything that one measurement of training steps gave."""

    rows: tuple[BenchRow, ...]
    ratios: tuple[Ratio, ...]
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    busy: str | None = None
    """What else used the machine while this was forced; None for an idle machine."""
    torch: str
    machine: str


def contender(variant: str, implementation: Implementation, *, compiled: bool) -> str:
    """Return how a contender is called: 'dense (compiled)', 'dense (transformers, eager)'."""
    way = "compiled" if compiled else "eager"
    return f"{variant} ({way if implementation == 'isoflop' else f'{implementation}, {way}'})"


def case_name(case: Case) -> str:
    """Return how the contender of a case is called."""
    return contender(case.variant, case.implementation, compiled=case.compiled)


def describe(report: BenchReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table per group, verdicts."""
    lines = []
    if report.busy is not None:
        lines.append(f"WARNING: measured on a BUSY machine, do not quote: {report.busy}")
    for group in sorted({row.group for row in report.rows}):
        rows = [row for row in report.rows if row.group == group]
        lines += [*_table(rows), ""]
        lines += [_ratio(ratio) for ratio in report.ratios if ratio.group == group]
        lines += [_verdict(verdict) for verdict in report.verdicts if verdict.group == group]
        lines.append("")
    return [*lines, *(f"note: {note}" for note in report.notes)]


def _table(rows: list[BenchRow]) -> list[str]:
    first = rows[0]
    shapes = {(row.width, row.blocks, row.sequence_length, row.sequences_per_step) for row in rows}
    shape = (
        f"width {first.width}, {first.blocks} blocks, {first.heads} heads, "
        f"{first.sequences_per_step} x {first.sequence_length} tokens, "
        if len(shapes) == 1
        else ""
    )
    cells = [["model", "parameters", "FLOPs/step", "ms/step", "steps/s", "GFLOP/s", "of peak"]]
    cells += [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.flops_per_step:.3g}",
            f"{row.step_seconds * 1e3:.3g}",
            f"{row.steps_per_second:.3g}",
            f"{row.achieved_flops / 1e9:.0f}",
            f"{row.achieved_flops / row.peak_flops:.0%}",
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [
        f"{shape}vocabulary {first.vocabulary}, {first.dtype}, {first.threads} threads; "
        f"matrix products reach {first.peak_flops / 1e9:.0f} GFLOP/s; {first.rounds} rounds",
        *(
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ),
    ]


def _ratio(ratio: Ratio) -> str:
    return (
        f"{ratio.name} is {ratio.speed_ratio:.3g} times as fast as {ratio.reference} "
        f"(middle half of rounds {ratio.low:.3g} to {ratio.high:.3g})"
    )


def _verdict(verdict: Verdict) -> str:
    outcome = "held" if verdict.held else "NOT HELD"
    return (
        f"{outcome}: {verdict.claim}: {verdict.measured:.3g}, expected at least "
        f"{verdict.expected:.3g}"
    )
