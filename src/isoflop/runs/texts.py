"""The texts of variants of one's own, kept beside the runs that they are part of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from isoflop import storage
from isoflop.config import RunConfig
from isoflop.config.own import keep, kept_texts


def write_texts(folder: Path, configs: Iterable[RunConfig]) -> None:
    """Write the texts of the runs' variants that are known here and not in the folder yet."""
    texts = kept_texts()
    for name, source in _files(configs):
        path = storage.inside(folder, name)
        if source in texts and not path.exists():
            storage.write_text(path, texts[source])


def know_texts(folder: Path, configs: Iterable[RunConfig]) -> None:
    """Remember the texts of the runs' variants that lie in a folder, without running them.

    The file that a study named may be another one by now, or gone.
    """
    for name, source in _files(configs):
        if source not in kept_texts():
            with suppress(OSError, UnicodeDecodeError):
                keep(storage.inside(folder, name).read_text(encoding="utf-8"))


def _files(configs: Iterable[RunConfig]) -> Iterator[tuple[str, str]]:
    """Yield the name of each variant's file in a folder, and the SHA-256 of its text."""
    variants = {own: None for config in configs for own in config.model.own.values()}
    for own in variants:
        if own.source is not None:
            yield f"variant-{own.kind}-{own.source[:12]}.py", own.source
