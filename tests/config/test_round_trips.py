"""Properties of configurations: files give back what was written, run ids name what is studied."""

from __future__ import annotations

import inspect
import json
import random
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isoflop.config import DataConfig, Frozen, Own, RunConfig, Study, TokenizerFile, canonical
from isoflop.config.load import load, validated
from isoflop.config.start import Start
from isoflop.sweep import Execution, Folders, run_study

STUDY = {"name": "s", "budgets_flops": [1e12], "variants": [{"name": "a"}, {"name": "b"}]}
SCALED = {
    "name": "s",
    "scaling": {"models": [{"blocks": 2, "width": 16}, {"blocks": 3, "width": 24}]},
    "variants": [{"name": "a"}],
}
MODEL = {"vocabulary": 256, "width": 48, "blocks": 12, "heads": 6, "head_width": 16, "hidden": 128}
RUN = {"model": MODEL, "steps": 7, "sequences_per_step": 5}
ROUTED = {**MODEL, "attention": {"kind": "block"}, "depth": {"kind": "top_k", "capacity": 0.25}}
WITHIN = {"windows": "documents"}
FILES = [
    (Study, STUDY),
    (Study, SCALED),
    (Study, {**STUDY, "data": WITHIN, "search": {"learning_rates": [1], "width_per_block": [8]}}),
    (RunConfig, RUN),
    (RunConfig, {**RUN, "model": ROUTED, "data": WITHIN, "positions": {}}),
]
FAST = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))


def members(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation offers, None among them."""
    if get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def values(annotation: Any, limits: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Return JSON data for an annotation, within the limits that fields declare."""
    return st.one_of([_values(member, limits) for member in members(annotation)])


def _values(member: Any, limits: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    known = {
        name: found
        for limit in limits
        for name in ("gt", "ge", "lt", "le", "min_length", "max_length")
        if (found := getattr(limit, name, None)) is not None
    }
    low, high = known.get("ge", known.get("gt")), known.get("le", known.get("lt"))
    if member is type(None):
        return st.none()
    if member is bool:
        return st.booleans()
    if member is int:
        return st.integers(low, high) | st.integers(low, min(high or 99, (low or 0) + 99))
    if member is float:
        ends = {"exclude_min": "gt" in known, "exclude_max": "lt" in known}
        return st.floats(low, high, **ends, allow_nan=False, allow_infinity=False)
    if member is str:
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        return st.sampled_from(("a", "x-1", "bytes", "bpe:300")) | text
    if get_origin(member) is Literal:
        return st.sampled_from(get_args(member))
    if get_origin(member) is tuple:
        item = get_args(member)[0]
        return st.lists(values(item, ()), min_size=known.get("min_length", 0), max_size=3)
    assert issubclass(member, Frozen), member
    return tables(member)


@st.composite
def tables(draw: st.DrawFn, kind: type[Frozen]) -> dict[str, Any]:
    """Return data for some fields of a value, and for all that it cannot do without."""
    found = {}
    for name, field in kind.model_fields.items():
        if name == "kind":
            found[name] = "mine" if kind is Own else field.default
        elif name == "settings":
            # Where there are some, no file has to be opened.
            found[name] = {"a": draw(st.integers(0, 3))}
        elif field.is_required() or draw(st.integers(0, 3)) == 0:
            found[name] = draw(values(field.annotation, tuple(field.metadata)))
    return found


@st.composite
def configurations(draw: st.DrawFn) -> tuple[type[Frozen], Frozen]:
    """Return a study or run: one of a few good ones with other values in some of its fields."""
    kind, base = draw(st.sampled_from(FILES))
    data = {**base}
    for name in draw(st.lists(st.sampled_from(sorted(kind.model_fields)), max_size=4, unique=True)):
        field = kind.model_fields[name]
        made = draw(values(field.annotation, tuple(field.metadata)))
        changed = {**data, name: made}
        if valid(kind, changed):
            data = changed
    found = valid(kind, data)
    if found is None:
        reject()
    return kind, found


def valid(kind: type[Frozen], data: dict[str, Any]) -> Frozen | None:
    try:
        return kind.model_validate(data)
    except ValidationError:
        return None


def toml(data: dict[str, Any]) -> str:
    """Return JSON data as TOML without what is null."""

    def inline(one: Any) -> str:
        if isinstance(one, dict):
            pairs = (f"{json.dumps(k)} = {inline(v)}" for k, v in one.items() if v is not None)
            return "{" + ", ".join(pairs) + "}"
        if isinstance(one, list):
            return "[" + ", ".join(map(inline, one)) + "]"
        return json.dumps(one, ensure_ascii=False).replace("\x7f", "\\u007f")

    return "".join(f"{key} = {inline(one)}\n" for key, one in data.items() if one is not None)


def shuffled(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = list(value)
    draw.shuffle(keys)
    return {key: shuffled(value[key], draw) for key in keys}


def sparse(value: Frozen, full: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return the data of a value without some of the fields that hold their default."""
    kept = {}
    for name, field in type(value).model_fields.items():
        content = getattr(value, name)
        if not field.is_required() and name != "kind" and content == field.get_default():
            if name in full and draw.random() < 0.5:
                kept[name] = full[name]
        else:
            nested = isinstance(content, Frozen)
            kept[name] = sparse(content, full[name], draw) if nested else full[name]
    return kept


def hold(folder: Path, made: tuple[type[Frozen], Frozen], seed: int) -> None:
    """Files give back what was written, and no run id heeds order or written out defaults."""
    kind, value = made
    full, draw = value.model_dump(mode="json"), random.Random(seed)
    for data in (full, canonical(value)):
        plain = json.loads(json.dumps(data))
        (folder / "c.json").write_text(json.dumps(plain))
        (folder / "c.toml").write_text(toml(plain), encoding="utf-8")
        for name in ("c.json", "c.toml"):
            assert load(folder / name) == value
        assert validated(kind, plain, "memory") == value
    if isinstance(value, RunConfig):
        for data in (full, canonical(value), shuffled(full, draw), sparse(value, full, draw)):
            assert RunConfig.model_validate(json.loads(json.dumps(data))).run_id == value.run_id


@pytest.mark.parametrize("examples", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_files_and_run_ids_keep_what_was_written(tmp_path: Path, examples: int) -> None:
    @settings(FAST, max_examples=examples, derandomize=examples == 40)
    @given(configurations(), st.integers(0, 2**30))
    def all_hold(made: tuple[type[Frozen], Frozen], seed: int) -> None:
        hold(tmp_path, made, seed)

    all_hold()


def kinds_in(kind: type[Frozen]) -> Iterator[type[Frozen]]:
    """Yield the type of a value and of those that may be in it."""
    yield kind
    for field in kind.model_fields.values():
        for member in members(field.annotation):
            if isinstance(member, type) and issubclass(member, Frozen):
                yield from kinds_in(member)


NAMELESS = {
    (DataConfig, "ids_tokenizer"),
    (TokenizerFile, "source"),
    (Start, "checkpoint"),
    (Start, "model"),
}
"""What decides nothing of training (`tests/data/test_foreign_tokenizers.py`), or has a SHA-256."""


def test_every_field_of_a_run_is_part_of_its_name() -> None:
    left_out = set()
    for kind in kinds_in(RunConfig):
        other = dict.fromkeys(kind.model_fields, "other")
        named = canonical(kind.model_construct(**other))
        left_out |= {(kind, name) for name in other.keys() - named.keys()}
    assert left_out == NAMELESS


def test_what_a_run_is_trained_with_is_no_part_of_its_name() -> None:
    options = {
        name for of in (run_study, Execution, Folders) for name in inspect.signature(of).parameters
    }
    assert {"device", "cache", "threads", "console", "root"} <= options
    assert not options & {name for kind in kinds_in(RunConfig) for name in kind.model_fields}
