"""Tables as text: fields parted by commas, semicolons, tabs, pipes or spaces."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from isoflop.fit.tables.files.grid import Header, Rows, find_header, rows_of
from isoflop.fit.tables.names import known

LONGEST_LINE = 100_000
_SAMPLE = 300
SEPARATORS: Mapping[str, str] = {
    ",": "commas",
    ";": "semicolons",
    "\t": "tabs",
    "|": "pipes",
    " ": "spaces",
}
"""What parts fields, in the order in which they are preferred, and what to call it."""
_RULE = re.compile(r"[\s|:+=-]*")
"""Lines between the header and the rows of a Markdown table."""


def separated(text: str) -> Rows:
    """Return the rows of a table as text; the separator is found.

    Raises:
        ValueError: the text is no table, or a quotation in it never ends.
    """
    text, comments = _without_comments(text)
    sample = text[: _SAMPLE * 1000]
    best: tuple[tuple[bool, int, float], str, Header] | None = None
    for separator in SEPARATORS:
        found = _header(sample, separator)
        if found is None:
            continue
        # "Model size" between tabs has a space: what parts it parts no row alike.
        score = (found.share > 0.5, found.recognised, found.share)
        if best is None or score > best[0]:
            best = (score, separator, found)
    if best is None:
        raise ValueError("it holds no table of two or more columns")
    separator = best[1]
    lines = _fields(text, separator)
    header = best[2]
    if not header.recognised and (named := _commented_header(comments, separator, lines)):
        lines = [named, *lines]
        header = find_header(lines[:1] + [named] * 2) or header
    return rows_of(lines, header, SEPARATORS[separator])


def check_lines(text: str) -> None:
    """Refuse text with lines that no person wrote, before a parser takes minutes for them."""
    start = 0
    number = 1
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start > LONGEST_LINE:
            what = "the names of columns" if number == 1 else "a row"
            place = "its first line" if number == 1 else f"its line {number}"
            raise ValueError(f"{place} is longer than {LONGEST_LINE:,} bytes; expected {what}")
        start, number = end + 1, number + 1


def _header(sample: str, separator: str) -> Header | None:
    try:
        return find_header(_fields(sample, separator)[:_SAMPLE])
    except ValueError:
        # The sample may end within a quotation.
        rows = [line.split(separator) for line in sample.split("\n")[: _SAMPLE // 10]]
        return find_header(rows)


def _fields(text: str, separator: str) -> list[list[str]]:
    if separator == " ":
        text = "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    lines = []
    try:
        for line in reader:
            cells = [cell.strip() for cell in line]
            if separator == "|" and cells and _RULE.fullmatch("|".join(cells)):
                continue
            if separator == "|" and len(cells) > 2 and cells[0] == "" and cells[-1] == "":
                cells = [cell.strip("*` ") for cell in cells[1:-1]]
            lines.append(cells)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    return lines


def _without_comments(text: str) -> tuple[str, list[str]]:
    """Return a text without the comments above its table, and these without their sign."""
    comments = []
    lines = io.StringIO(text)
    at = 0
    for line in lines:
        bare = line.strip()
        names = sum(bool(known(one)) for one in re.split(r"[,;\t|]", bare))
        if bare and not (bare.startswith("#") and names < 2):
            break
        if bare:
            comments.append(bare.lstrip("# "))
        at += len(line)
    return text[at:], comments


def _commented_header(
    comments: Sequence[str], separator: str, lines: Sequence[Sequence[str]]
) -> list[str] | None:
    """Return the header where the last comment above the rows holds it: `# params tokens loss`."""
    if not comments or not lines:
        return None
    fields = _fields(comments[-1], separator)
    fitting = fields and len(fields[0]) == len(lines[0])
    return fields[0] if fitting and any(known(name) for name in fields[0]) else None
