"""What one training run is: a model, its data, its recipe. The run id is a hash of this."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from isoflop.config.model import ModelConfig
from isoflop.config.recipe import Recipe, WarmupStableDecay
from isoflop.config.start import Start
from isoflop.frozen import LARGEST_SEED, Frozen, fingerprint, left_out
from isoflop.strict_json import parse_json

Convention = Literal["causal", "full", "6nd"]
"""How compute is counted; see `isoflop.costs`."""

Windows = Literal["stream", "documents"]
"""What windows of tokens are cut from; see `DataConfig.windows`."""
EvaluationText = Literal["start", "spread"]
"""Where in a held-out split a loss is measured; see `RunConfig.evaluation_text`."""

Span = tuple[int, int]
"""Positions of targets within a window, from the first up to but not including the second."""

RUN_ID_VERSION = 1

LARGEST_BUDGET_FLOPS = 1e40
LARGEST_VOCABULARY = 1_000_000

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end_of_sentence|>", "<|end|>")
"""What ends a document in vocabularies of which no `eos_token` tells, the first that is there."""


class TokenizerFile(Frozen):
    """A `tokenizer.json` that others made, named by path or `hf:NAME`: what is known without it."""

    source: str
    """Path of the file, or `hf:NAME`; no part of the run id."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file."""
    vocabulary: int = Field(ge=2, le=LARGEST_VOCABULARY)
    """One more than the largest id."""
    end: int = Field(ge=0, lt=LARGEST_VOCABULARY)
    """Id that ends a document: `eos_token` of a `tokenizer_config.json` beside it, or of `ENDS`."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return _described_tokenizer(value) if isinstance(value, str) else value

    def named(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what tells it from others, wherever it lies."""
        return {name: one for name, one in kept.items() if name != "source"}

    def content(self) -> str:
        """Return the text of the file; a ValueError of one line where it is gone or changed."""
        content = _tokenizer_content(self.source)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError(
                f"the tokenizer {self.source} changed: its SHA-256 was {self.sha256[:12]}; restore "
                "it, or run the study again, whose runs are then others"
            )
        return content.decode()


def is_tokenizer_file(name: str) -> bool:
    """Return whether a tokenizer is called by a file that others made, or is meant to be."""
    return name.startswith("hf:") or name.endswith((".json", ".model", ".tiktoken"))


def _tokenizer_file(source: str, name: str) -> Path | None:
    """Return where a file of a tokenizer lies; None where the hub has none of that name."""
    if not source.startswith("hf:"):
        return Path(os.path.expanduser(source)).parent / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for cached in (True, False):
        try:
            hub = source.removeprefix("hf:")
            return Path(hf_hub_download(hub, name, local_files_only=cached))
        except LocalEntryNotFoundError:
            problem = "it is not in the hub's cache, and the hub cannot be reached"
        except EntryNotFoundError:
            return None
        except Exception as error:  # the library has many, of other libraries besides
            problem = " ".join(str(error).split())[:200]
    raise ValueError(
        f"tokenizer is {source!r}, of which {name} cannot be had ({problem}); expected a name on "
        "the Hugging Face hub, or the path of a tokenizer.json"
    )


def _tokenizer_content(source: str) -> bytes:
    if source.endswith((".model", ".tiktoken")):
        raise ValueError(
            f"tokenizer is {source!r}, a vocabulary of SentencePiece or tiktoken; expected a "
            "tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OUT) of "
            "transformers, with sentencepiece, tiktoken and protobuf installed, writes one"
        )
    hub = source.startswith("hf:")
    path = _tokenizer_file(source, "tokenizer.json" if hub else Path(source).name)
    if path is None or not os.path.isfile(path) or not is_tokenizer_file(source):
        raise ValueError(
            f"tokenizer is {source!r}; expected the path of a tokenizer.json, or hf:NAME; there is "
            "no such file"
        )
    return path.read_bytes()


def _described_tokenizer(source: str) -> dict[str, Any]:
    content = _tokenizer_content(source)
    told = parse_json(content, source)
    try:
        words = told["model"]["vocab"]
        ids = {one[0]: at for at, one in enumerate(words)} if isinstance(words, list) else words
        ids = {**ids, **{one["content"]: one["id"] for one in told.get("added_tokens") or ()}}
        vocabulary = 1 + max(ids.values())
    except (TypeError, LookupError, ValueError, AttributeError):
        raise ValueError(
            f"tokenizer is {source!r}, which is not the JSON of a tokenizer; expected a "
            "tokenizer.json as the `tokenizers` library writes it"
        ) from None
    beside, stated = _tokenizer_file(source, "tokenizer_config.json"), None
    if beside is not None and beside.is_file():
        stated = parse_json(beside.read_bytes(), str(beside))
    end = stated.get("eos_token") if isinstance(stated, dict) else None
    end = end.get("content") if isinstance(end, dict) else end
    end = end or next((one for one in ENDS if one in ids), None)
    if not isinstance(end, str) or end not in ids:
        raise ValueError(
            f"tokenizer is {source!r}, of which no token is known that ends a document; expected a "
            "tokenizer_config.json beside it with `eos_token`"
        )
    found = hashlib.sha256(content).hexdigest()
    return {"source": source, "sha256": found, "vocabulary": vocabulary, "end": ids[end]}


def _or_text(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "string"})


class DataConfig(Frozen):
    """A corpus (or several), how it becomes tokens, and how it is split by document."""

    corpus: str | tuple[str, ...] = "sotu"
    """`sotu`, `python`, a path, glob or URL of text, JSONL or Parquet, `hf:NAME[:config]`; a list.
    With the tokenizer `ids:...` paths of .bin or .npy files of token ids."""
    tokenizer: str | TokenizerFile = "bytes"
    """`bytes`, or `bpe:SIZE` trained on the training split; the path of a `tokenizer.json`, or
    `hf:NAME`; `ids:VOCABULARY` or `ids:VOCABULARY:END` where the corpus is token ids already, END
    being the id that ends a document."""
    sequence_length: int = Field(default=256, ge=2, le=10**9)
    """T, the tokens a model sees at once."""
    windows: Windows = "stream"
    """What a window of T tokens is cut from: the stream of documents one after the other, or a
    single document, so that every position has the context it seems to have; documents shorter
    than a window are then left out of training."""
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    split_seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    ids_tokenizer: TokenizerFile | None = Field(default=None, json_schema_extra=_or_text)
    """What made the ids of such a corpus, so that losses per byte and text are known; a path or
    `hf:NAME`. It decides nothing of training, and is no part of the run id."""

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
    def _known_tokenizer(cls, value: str | TokenizerFile) -> str | TokenizerFile:
        if value == "bytes" or isinstance(value, TokenizerFile):
            return value
        if is_tokenizer_file(value):
            return TokenizerFile.model_validate(value)
        ids = re.fullmatch(r"ids:(\d{1,7})(?::(\d{1,7}))?", value)
        if ids and 2 <= int(ids[1]) <= 1_000_000 and int(ids[2] or 0) < int(ids[1]):
            return ":".join(["ids", *(str(int(one)) for one in ids.groups() if one)])
        match = re.fullmatch(r"bpe:(\d+)", value)
        if not match or not 257 <= int(match[1]) <= 1_000_000:
            raise ValueError(
                f"tokenizer is {value!r}; expected 'bytes' or "
                "'bpe:SIZE' with SIZE from 257 to 1000000, the path of a tokenizer.json or "
                "'hf:NAME', or for files of token ids "
                "'ids:VOCABULARY' or 'ids:VOCABULARY:END' with VOCABULARY from 2 to 1000000 and "
                "END below it"
            )
        return f"bpe:{int(match[1])}"

    @model_validator(mode="after")
    def _ids_of_a_tokenizer(self) -> DataConfig:
        made = self.ids_tokenizer
        if made is not None and (self.is_text or made.vocabulary > self.vocabulary):
            raise ValueError(
                f"ids_tokenizer has {made.vocabulary} ids, and tokenizer is "
                f"{self.tokenizer_name!r}; expected 'ids:VOCABULARY' of at least as many"
            )
        return self

    def named(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what decides the tokens: not what tells of their text."""
        return {name: one for name, one in kept.items() if name != "ids_tokenizer"}

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer as a study names it, with the hash of its file where others made it."""
        named = self.tokenizer
        return named if isinstance(named, str) else f"{named.source} ({named.sha256[:8]})"

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora as a tuple, one or several."""
        return (self.corpus,) if isinstance(self.corpus, str) else self.corpus

    @property
    def is_text(self) -> bool:
        """Whether the corpora are text, and not token ids."""
        return not (isinstance(self.tokenizer, str) and self.tokenizer.startswith("ids:"))

    @property
    def spells(self) -> bool:
        """Whether it is known what text ids stand for."""
        return self.is_text or self.ids_tokenizer is not None

    @property
    def end(self) -> int | None:
        """The id that ends a document: 0 for text, but where others made the tokenizer; None for
        ids without a border."""
        if isinstance(self.tokenizer, TokenizerFile):
            return self.tokenizer.end
        if self.is_text:
            return 0
        _, _, *end = self.tokenizer.split(":")
        return int(end[0]) if end else None

    @property
    def ends(self) -> tuple[int, ...]:
        """The id that ends a document, if there is one: what leads the first document too."""
        return () if self.end is None else (self.end,)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        if isinstance(self.tokenizer, TokenizerFile):
            return self.tokenizer.vocabulary
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
    evaluation_text: EvaluationText = Field(default="start", exclude_if=lambda it: it == "start")
    """Where in a split they lie: at its start, or in windows at even distances over all of it, so
    that each of several corpora is read; of documents, in those at even distances."""
    positions: Positions | None = None
    """Ranges of positions whose losses are told apart, in training and at its end."""
    start: Start | None = Field(default=None, exclude_if=left_out)
    """Checkpoint whose weights it starts from; steps and FLOPs count from there."""

    @model_validator(mode="after")
    def _cut_windows(self) -> RunConfig:
        if self.start is not None and self.start.taken(self.model, "model") != self.model:
            raise ValueError("model has another shape than start.checkpoint; expected the same")
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
            or self.model.follows_training
            or (warmup or 0) >= self.steps
        ):
            return 0
        return self.decays_from(schedule)

    @property
    def stem(self) -> str:
        """What runs that differ only in their length have in common, as twelve digits."""
        return self.model_copy(update={"steps": 1, "budget_flops": None}).run_id
