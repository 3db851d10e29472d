"""What is measured: contenders for the same step, in groups that take turns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from isoflop.config import (
    DataConfig,
    Depth,
    EveryToken,
    Frozen,
    ModelConfig,
    Precision,
    Recipe,
    RunConfig,
    TopK,
)
from isoflop.training import compiles_by_default

Implementation = Literal["isoflop", "transformers"]

VOCABULARY = 4096

STANDARD_SHAPES = ((256, 8, 4, 512, 8), (512, 8, 8, 1024, 4))
"""Width, blocks, heads, sequence length and sequences per step of the standard comparison."""

NO_PEER = "transformers is not installed: no comparison with Hugging Face's Llama"

DENSE = "dense"
ROUTED = "MoD 12.5%"


class Case(Frozen):
    """One contender: a run's step, and what computes it."""

    variant: str
    config: RunConfig
    compiled: bool
    implementation: Implementation = "isoflop"

    @property
    def name(self) -> str:
        """The contender in words."""
        return contender(self.variant, self.implementation, compiled=self.compiled)


def contender(variant: str, implementation: Implementation, *, compiled: bool) -> str:
    """Return how a contender is called: 'dense (compiled)', 'dense (transformers, eager)'."""
    way = "compiled" if compiled else "eager"
    return f"{variant} ({way if implementation == 'isoflop' else f'{implementation}, {way}'})"


def standard_groups(precision: Precision = "bf16") -> tuple[tuple[Case, ...], ...]:
    """Return the standard comparison: per shape dense, routed and Hugging Face's Llama."""
    return tuple(_standard_group(*shape, precision) for shape in STANDARD_SHAPES)


def study_group(
    models: Iterable[tuple[str, RunConfig]], *, compiled: bool | None = None
) -> tuple[Case, ...]:
    """Return a study's models as one group, each model once.

    Args:
        models: name of the variant and one of its runs.
        compiled: whether steps are compiled; None for what training decides for the run.

    Raises:
        ValueError: there is no model.
    """
    cases: dict[tuple[str, ModelConfig, int], Case] = {}
    for variant, config in models:
        wanted = compiles_by_default(config) if compiled is None else compiled
        case = Case(variant=variant, config=config, compiled=wanted)
        cases.setdefault((variant, config.model, config.tokens_per_step), case)
    if not cases:
        raise ValueError("there are no models to measure; expected at least one")
    return tuple(cases.values())


def _standard_group(
    width: int,
    blocks: int,
    heads: int,
    sequence_length: int,
    sequences: int,
    precision: Precision,
) -> tuple[Case, ...]:
    def run(depth: Depth) -> RunConfig:
        return RunConfig(
            model=ModelConfig(
                vocabulary=VOCABULARY,
                width=width,
                blocks=blocks,
                heads=heads,
                head_width=width // heads,
                hidden=hidden_width(width),
                depth=depth,
            ),
            data=DataConfig(tokenizer=f"bpe:{VOCABULARY}", sequence_length=sequence_length),
            recipe=Recipe(precision=precision),
            steps=1,
            sequences_per_step=sequences,
        )

    dense, routed = run(EveryToken()), run(TopK(capacity=0.125, every=2))
    peer: Implementation = "transformers"
    return (
        Case(variant=DENSE, config=dense, compiled=True),
        Case(variant=DENSE, config=dense, compiled=False),
        Case(variant=ROUTED, config=routed, compiled=True),
        Case(variant=DENSE, config=dense, compiled=False, implementation=peer),
        Case(variant=DENSE, config=dense, compiled=True, implementation=peer),
    )


def hidden_width(width: int) -> int:
    """Return Llama's feed-forward width, 8/3 of the model's to the next multiple of 32."""
    return -(-8 * width // (3 * 32)) * 32
