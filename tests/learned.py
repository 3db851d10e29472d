"""What the fixture `trained` gives: a small routed model that has learned its text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoflop.config import RunConfig
from isoflop.data import TokenSplit
from isoflop.model import Transformer
from isoflop.runs import RunFolder

WORDS = ("the", "state", "of", "union", "is", "strong", "and", "our", "law", "shall", "keep", "it")


@dataclass(frozen=True)
class Trained:
    """A trained model, its run, and text that it has not seen."""

    model: Transformer
    config: RunConfig
    test: TokenSplit
    folder: RunFolder
    cache: Path
