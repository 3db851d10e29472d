"""What is wrong with a configuration, in words: key path, what is there, what was expected."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError

from isoflop.frozen import Frozen
from isoflop.text import quoted

MOST_PROBLEMS = 100
"""Only so many are put in words: a file that is no study may have one in each of its lines."""

_LONGEST_VALUE = 60
_PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class _Place(NamedTuple):
    """Where an error lies: the key path, and what the model wants there."""

    path: str
    annotation: Any
    limits: Sequence[Any] = ()


def describe(error: ValidationError, kind: type[Frozen], within: str = "") -> list[str]:
    """Return a line for each of the first problems, without what follows from another one.

    `within` is the key of the table, where it is one of a larger file.
    """
    details = error.errors(include_url=False)
    # A misspelt key also makes the right one missing: what is unknown explains what is missing.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    details = details[:MOST_PROBLEMS]
    places = [_place(kind, detail["loc"], within) for detail in details]
    lines: dict[str, None] = {}  # an ordered set: a union complains once for each member
    for detail, place in zip(details, places, strict=True):
        # With a problem inside, a list also counts as too short and a union as mistyped.
        follows = detail["type"] != "extra_forbidden" and any(
            other.path.startswith((f"{place.path}[", f"{place.path}.")) for other in places
        )
        if not follows:
            lines[_line(detail, place)] = None
    return list(lines)


def _line(detail: Mapping[str, Any], place: _Place) -> str:
    path = place.path or "the file"
    match detail["type"]:
        case "extra_forbidden":
            key = str(detail["loc"][-1])
            names = {name: None for m in _models(place.annotation) for name in m.model_fields}
            return f"unknown key {_joined(place.path, key)}; {_suggestion(key, names)}"
        case "missing":
            return f"{path} is missing; expected {_expected(place)}"
        case "union_tag_not_found":
            return f"{path} has no `kind`; expected {_choices(_known_kinds(place))}"
        case "union_tag_invalid":
            tag = str(detail["ctx"]["tag"])
            kinds = _known_kinds(place)
            told = _suggestion(tag, kinds)
            # One of those may ship through the door for variants of one's own.
            if kinds != _kinds(place.annotation) and told.startswith("expected"):
                told += ", or a name of your own with `from`"
            return f"{_joined(path, 'kind')} is {_shown(tag)}; {told}"
        case "value_error":
            text = str(detail["ctx"]["error"])
            key = place.path.rpartition(".")[2]
            if not place.path:
                return quoted(text)
            if text.startswith(f"{key} "):
                return quoted(place.path.removesuffix(key) + text)
            return quoted(f"{place.path}: {text}")
        case "literal_error" if isinstance(detail["input"], str):
            choices = [str(choice) for choice in get_args(place.annotation)]
            given = detail["input"]
            return f"{path} is {_shown(given)}; {_suggestion(given, choices)}"
        case "json_invalid":
            return quoted(str(detail["msg"]))
        case _:
            return f"{path} is {_shown(detail['input'])}; expected {_expected(place)}"


def _place(kind: type[Frozen], location: tuple[int | str, ...], within: str) -> _Place:
    """Follow pydantic's location, leaving out its steps that are no keys of the file.

    Those are the tag of a discriminated union and the name of a union's member. The place of an
    unknown key is that of the table it stands in.
    """
    place = _Place(within, kind)
    for step in location:
        members, models = list(_members(place.annotation)), list(_models(place.annotation))
        if isinstance(step, int):
            items = [get_args(member)[0] for member in members if get_origin(member) is tuple]
            place = _Place(f"{place.path}[{step}]", (*items, Any)[0])
            continue
        tagged = [m for m in models if _kinds(m) == [step]]
        fields = [m.model_fields[step] for m in models if step in m.model_fields]
        if fields:
            path = _joined(place.path, step)
            place = _Place(path, fields[0].annotation, fields[0].metadata)
        elif tagged:
            place = place._replace(annotation=tagged[0])
        elif len(members) == 1 and get_origin(members[0]) is dict:
            place = _Place(_joined(place.path, step), get_args(members[0])[1])
    return place


def _expected(place: _Place) -> str:
    """Return what the model wants at `place`, such as `a number in (0, 1]`."""
    words = list(dict.fromkeys(_words(place.annotation)))
    return " or ".join(words) + _bounds(place.limits, words[0])


def _words(annotation: Any) -> Iterator[str]:
    for member in _members(annotation):
        if member in _PLAIN:
            yield _PLAIN[member]
        elif get_origin(member) is Literal:
            yield _choices(str(choice) for choice in get_args(member))
        elif get_origin(member) is tuple:
            yield "a list of " + next(
                word if word == "text" else f"{word.removeprefix('a ')}s"
                for word in _words(get_args(member)[0])
            )
        else:
            yield "a table"


def _bounds(limits: Iterable[Any], noun: str) -> str:
    """Return the allowed range in words, from annotated-types constraints."""
    found = {
        name: value
        for limit in limits
        for name in ("gt", "ge", "lt", "le", "min_length", "max_length")
        if (value := getattr(limit, name, None)) is not None
    }
    if "min_length" in found:
        low, high = found["min_length"], found.get("max_length")
        unit = " characters" if noun == "text" else ""
        return f" of {low} to {high}{unit}" if high else f", at least {low}{unit}"
    low, high = found.get("gt", found.get("ge")), found.get("lt", found.get("le"))
    if low is not None and high is not None:
        if "ge" in found and "le" in found:
            return f" from {_number(low)} to {_number(high)}"
        return (
            f" in {'(' if 'gt' in found else '['}{low:g}, {high:g}{')' if 'lt' in found else ']'}"
        )
    if low is not None:
        return f" {'above' if 'gt' in found else 'of at least'} {low:g}"
    if high is not None:
        return f" {'below' if 'lt' in found else 'of at most'} {high:g}"
    return ""


def _number(value: float) -> str:
    """Return a bound as people write it: 1,000,000 or 0.001 or 1e+12."""
    return f"{int(value):,}" if value == int(value) and value < 1e12 else f"{value:g}"


def _members(annotation: Any) -> Iterator[Any]:
    """Yield what a union offers, or the annotation itself; never None."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not type(None):
        yield annotation


def _models(annotation: Any) -> Iterator[type[Frozen]]:
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, Frozen):
            yield member


def _kinds(annotation: Any) -> list[str]:
    fields = [model.model_fields.get("kind") for model in _models(annotation)]
    # A variant of one's own may have any.
    return [str(f.default) for f in fields if f is not None and not f.is_required()]


def _known_kinds(place: _Place) -> list[str]:
    """Return the kinds that a table may be of, those that ship as variants of one's own too."""
    from isoflop.config.own import BUILT_IN  # which imports this module

    part = place.path.rpartition(".")[2]
    return [*_kinds(place.annotation), *(kind for kind, of in BUILT_IN.items() if of == part)]


def _suggestion(given: str, choices: Iterable[str]) -> str:
    choices = list(choices)
    near = difflib.get_close_matches(given, choices, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"expected {_choices(choices)}"


def _choices(choices: Iterable[str]) -> str:
    named = [repr(choice) for choice in choices]
    return named[0] if len(named) == 1 else f"one of {', '.join(named)}"


def _joined(path: str, key: str) -> str:
    plain = key if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) else _shown(key)
    return f"{path}.{plain}" if path else plain


def _shown(value: Any) -> str:
    """Return a value as it would stand in the file, on one line and not too long."""
    match value:
        case bool():
            text = str(value).lower()
        case float() if math.isfinite(value):
            text = f"{value:.12g}"
        case None:
            text = "null"
        case dict():
            text = "a table"
        case _:
            text = ascii(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
