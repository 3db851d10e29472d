"""The study to start from."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from isoflop import storage
from isoflop.config.schema import schema_text

SCHEMA_NAME = "isoflop-study.schema.json"
"""What the first line of the starter study points editors at."""


def starter_text() -> str:
    """Return the commented study to start from, as TOML."""
    return files("isoflop.cli").joinpath("starter.toml").read_text(encoding="utf-8")


def write_starter(path: Path) -> tuple[Path, Path]:
    """Write the starter study to `path` and the schema beside it; return both paths.

    Raises:
        ValueError: `path` exists, or a schema of other content does; nothing is overwritten.
        StorageError: the folder cannot be written.
    """
    schema_path = path.parent / SCHEMA_NAME
    schema = schema_text()
    if os.path.lexists(path):
        raise ValueError(f"{path} exists and is not overwritten; name another file")
    if os.path.lexists(schema_path) and schema_path.read_bytes() != schema.encode():
        raise ValueError(
            f"{schema_path} is of another version and is not overwritten; remove it first"
        )
    storage.write_text(schema_path, schema)
    storage.write_text(path, starter_text())
    return path, schema_path
