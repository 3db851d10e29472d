"""Reading study and run files, so that whatever is wrong with one is told in one line.

Also the JSON Schema of a study file, with which an editor completes and checks it.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from isoflop.config.own import opened, whole_numbers
from isoflop.config.problems import MOST_PROBLEMS, describe
from isoflop.config.run import RunConfig
from isoflop.config.start import opened_start
from isoflop.config.study import Study
from isoflop.frozen import Frozen
from isoflop.text import file_text, quoted

MOST_DOTS = 200
"""In a piece of TOML that may be a key; the parser needs memory by the square of a key's parts."""
_NO_KEY = re.compile(
    r""" "{3}(?:\\.|[^\\])*?"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*' | \#[^\n]* """,
    re.DOTALL | re.VERBOSE,
)
"""Strings and comments of TOML, whose dots separate nothing."""


Config = TypeVar("Config", bound=Frozen)


def load(path: str | os.PathLike[str]) -> Study | RunConfig:
    """Return the study or the single run that a TOML or JSON file describes.

    A file with a `model` table is a run, every other one is a study.

    Raises:
        ValueError: the file cannot be read, or does not describe one; in one line.
    """
    data, source = read(path), os.fspath(path)
    with _one_line(source):
        data = opened(opened_start(whole_numbers(data)), Path(path).parent)
    kind: type[RunConfig | Study] = RunConfig if "model" in data else Study
    return validated(kind, data, source)


def load_study(path: str | os.PathLike[str]) -> Study:
    """Return the study that a TOML or JSON file describes.

    Raises:
        ValueError: the file cannot be read, or does not describe a study; in one line.
    """
    config = load(path)
    if not isinstance(config, Study):
        raise ValueError(
            f"{quoted(os.fspath(path))}: has a `model` table, so it describes a single run; "
            "expected a study, with variants and budgets_flops or [scaling]"
        )
    return config


def validated(kind: type[Config], data: dict[str, Any], source: str) -> Config:
    """Return `data`, parsed from `source`, as a value of `kind`, as strict about types as JSON.

    Raises:
        ValueError: one line with the source, the key path, what is there and what was expected.
    """
    with _one_line(source):
        try:
            # JSON mode, since only there a strict reading takes a list for a tuple. Strict, because
            # otherwise `capacity = true` would pass as 1.
            text = json.dumps(whole_numbers(data), default=_refuse_date)
            return kind.model_validate_json(text, strict=True)
        except ValidationError as error:
            problems = describe(error, kind)
            at_least = "at least " if error.error_count() > MOST_PROBLEMS else ""
        more = len(problems) - 1
        rest = f" (and {at_least}{more} more problem{'s' if more > 1 else ''})" if more else ""
        raise ValueError(f"{problems[0]}{rest}")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the tables of a TOML file, or of a JSON file if its name ends in `.json`.

    Raises:
        ValueError: the file is missing, too large, no text, or malformed; in one line.
    """
    name = os.fspath(path)
    form, parse = ("JSON", _json) if name.endswith(".json") else ("TOML", _toml)
    with _one_line(name):
        text = file_text(
            Path(name),
            expected="a study or run file",
            hint="`isoflop init` writes a study to start from",
        )
        try:
            data = parse(text)
        except ValueError as error:
            raise ValueError(f"is not valid {form}: {quoted(str(error))}") from None
        if not isinstance(data, dict):
            raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    return data


@contextmanager
def _one_line(source: str) -> Iterator[None]:
    """Name the source in front of what is wrong with it."""
    try:
        yield
    except RecursionError:
        raise ValueError(f"{quoted(source)}: is nested too deeply to be a study") from None
    except ValueError as error:
        raise ValueError(f"{quoted(source)}: {error}") from None


def _toml(text: str) -> Any:
    """Parse TOML, refusing keys that nest thousands of tables, which would fill the memory."""
    pieces = re.split("[=,\n]", _NO_KEY.sub("", text))
    if any(piece.count(".") > MOST_DOTS for piece in pieces):
        raise RecursionError
    return tomllib.loads(text)


def _json(text: str) -> Any:
    """Parse JSON, refusing what the standard parser lets pass: repeated keys, NaN, Infinity."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in pairs:
            if key in table:
                raise ValueError(f"key {key!r} is given twice")
            table[key] = value
        return table

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON number")

    return json.loads(text, object_pairs_hook=distinct, parse_constant=refuse)


def _refuse_date(value: Any) -> Any:
    raise ValueError(f"{value} is a date or time; expected text, in quotes, or a number")


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a study file, descriptions included."""
    schema = Study.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "isoflop study"
    for table in (schema, *schema["$defs"].values()):
        for field in table["properties"].values():
            field.pop("title", None)  # pydantic's, made out of the key: editors would show it twice
    for table in schema["$defs"].values():
        # The default of `kind` serves Python; a file has to say which choice it makes.
        if "const" in table["properties"].get("kind", {}):
            table["required"] = ["kind", *table.get("required", [])]
    return schema


def schema_text() -> str:
    """Return the schema as the text of a JSON file."""
    return json.dumps(study_schema(), indent=2, ensure_ascii=True) + "\n"
