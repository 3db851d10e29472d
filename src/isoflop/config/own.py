"""A variant of one's own: what names it in a configuration, and the one Python file behind it.

`isoflop.variants` says what the file has to hold. Here it is found, read and run, and its settings
are checked; a configuration that was read from a record needs none of that.
"""

from __future__ import annotations

import hashlib
import json
import linecache
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_args

from pydantic import Field, GetJsonSchemaHandler, JsonValue, ValidationError
from pydantic_core import CoreSchema, to_jsonable_python

from isoflop.config.problems import describe
from isoflop.frozen import Frozen, canonical
from isoflop.text import file_text, quoted

Decision = Literal["every_token", "top_k", "predictor", "threshold", "router", "bernoulli"]
"""Who decides which tokens a routed block processes.

`top_k` ranks scores over the whole sequence, as in training, and so looks at the future. The
others are causal: the stop-gradient `predictor`, the running `threshold` on the router logit,
the `router` logit's own sign (meaningful when trained with the router BCE), and for the random
control `bernoulli` draws. `every_token` is the decision of a model without routed blocks.
"""

Part = Literal["attention", "feed_forward", "depth", "block"]
"""What of a model a variant of one's own takes the place of; `block` is attention and feed-forward
together."""

BUILT_IN: Mapping[str, Part] = {
    "fixed_skip": "depth",
    "routed": "depth",
    "mixture_of_experts": "feed_forward",
    "expert_choice": "feed_forward",
    "sliding_window": "attention",
}
"""Kinds that come through the same door, each in the module of its name in `isoflop.variants`."""
SHIPPED = ("full", "block", "every_token", "top_k", "random_k", "swiglu", "gelu")
"""Kinds that are classes of `config.model`, whose names no file may take."""
_KIND = "^[a-z][a-z0-9_]{0,39}$"
ENTRY_POINTS = "isoflop.variants"
"""Group of entry points by which installed packages name modules, each by its kind."""


class Own(Frozen):
    """A choice that a Python file describes, and no class here."""

    kind: str = Field(pattern=_KIND)
    source: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file's text; None for a kind in `BUILT_IN`."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Those not at their default, as the file's `Config` takes them."""
    decisions: tuple[Decision, ...] = Field(default=("every_token",), min_length=1)
    """What it is evaluated under, the headline first: told here, so that records need no code."""

    def __hash__(self) -> int:
        return hash((self.kind, self.source, json.dumps(self.settings, sort_keys=True)))

    @property
    def described(self) -> str:
        """The choice in words: its kind, and settings that are not at their default."""
        told = [f"{name} {json.dumps(value)}" for name, value in self.settings.items()]
        return f"{self.kind} ({', '.join(told)})" if told else self.kind

    @property
    def follows_training(self) -> bool:
        """Whether it is told how much of training is over, by which it may compute otherwise."""
        # Of a text that is not at hand nothing is known.
        text = "" if self.source is None else _TEXTS.get(self.source, "SCHEDULED")
        told = "def progress(" in text or "SCHEDULED" in text
        return told or "start_capacity" in self.settings

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return how a study file writes it: `from`, and the settings beside `kind`."""
        kind = {"type": "string", "not": {"enum": list(SHIPPED)}}
        source = {"type": "string", "description": "Python file, relative to the study's."}
        return {
            "title": "Own",
            "type": "object",
            "description": cls.__doc__,
            "properties": {"kind": kind, "from": source},
            "required": ["kind"],
        }


_TEXTS: dict[str, str] = {}
_MODULE = "isoflop_variant_"
"""How names of modules start that were made of these."""


def keep(text: str) -> str:
    """Remember the text of a file, so that it can be run; return its SHA-256."""
    source = hashlib.sha256(text.encode()).hexdigest()
    _TEXTS[source] = text
    return source


def kept_texts() -> dict[str, str]:
    """Return the texts remembered in this process by their SHA-256."""
    return dict(_TEXTS)


def own(part: Part, kind: str, settings: Mapping[str, Any], file: Path | None = None) -> Own:
    """Return a variant of one's own; its file is run, and its settings are checked.

    Args:
        part: what it takes the place of.
        kind: a name for it; one of `BUILT_IN`, or of an entry point, where no file is given.
        settings: as the file's `Config` takes them.
        file: with its code.

    Raises:
        ValueError: there is no such file, it does not run or lacks something, or a setting is
            wrong; in one line.
    """
    if kind in SHIPPED:
        raise ValueError(f"{part}.kind is {kind!r}, which isoflop has itself; give it another name")
    source = None if file is None and kind in BUILT_IN else keep(_text(kind, file))
    if not re.fullmatch(_KIND, kind):
        raise ValueError(
            f"{part}.kind is {kind!r}; expected a to z, 0 to 9 and _, a letter first, 40 at most"
        )
    named = Own(kind=kind, source=source)
    module = module_of(named, part, str(file or kind))
    config = module.Config
    try:
        found = config.model_validate_json(json.dumps(dict(settings), default=str), strict=True)
    except ValidationError as error:
        raise ValueError(describe(error, config, part)[0]) from None
    decisions = getattr(module, "DECISIONS", ("every_token",))
    # As in a file, since what a run is called follows from how they are written.
    written = whole_numbers(to_jsonable_python(canonical(found)))
    return named.model_copy(update={"settings": written, "decisions": tuple(decisions)})


def whole_numbers(value: Any) -> Any:
    """Turn floats without a fraction into integers, so that `tokens_per_step = 2e3` is fine.

    Fields that are no integers take an integer as well.
    """
    match value:
        case dict():
            return {key: whole_numbers(item) for key, item in value.items()}
        case list():
            return [whole_numbers(item) for item in value]
        case float() if value.is_integer() and abs(value) <= 2**53:
            return int(value)
        case _:
            return value


def kind_of(file: Path) -> str:
    """Return a name for the variant in a file: the file's, as far as a kind may be called so."""
    called = re.sub("[^a-z0-9_]", "_", file.stem.lower()).lstrip("_0123456789")[:36]
    return called if called and called not in (*SHIPPED, *BUILT_IN) else f"my_{called}"


def of_file(file: Path) -> tuple[Part, Own]:
    """Return the variant of a file by its defaults, called as the file is, and what it replaces.

    Raises:
        ValueError: as `own`.
    """
    kind, shown, parts = kind_of(file), quoted(str(file)), get_args(Part)
    module = _run(keep(_text(kind, file)), shown)
    found = getattr(module, "PART", None)
    if found not in parts:
        raise ValueError(f"{shown}: its PART is {found!r}; expected one of {', '.join(parts)}")
    part = cast(Part, found)
    fields = getattr(getattr(module, "Config", None), "model_fields", {})
    needed = next((name for name, field in fields.items() if field.is_required()), None)
    if needed is not None:
        raise ValueError(
            f"{shown}: Config.{needed} has no default, by which a file alone is read; give it one, "
            "or name a study that sets it"
        )
    return part, own(part, kind, {}, file)


def opened(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the tables of a study or run file with each table of a variant of one's own opened.

    Its `from` is relative to the folder.

    Raises:
        ValueError: as `own`, with the place in the file.
    """
    variants = data.get("variants")
    tables = [data.get("model"), *(variants if isinstance(variants, list) else ())]
    for table in (one for one in tables if isinstance(one, dict)):
        for part in get_args(Part):
            found = table.get(part)
            if not isinstance(found, dict) or not _is_own(part, found):
                continue
            settings = {key: one for key, one in found.items() if key not in ("kind", "from")}
            name = found.get("from")
            try:
                if not isinstance(kind := found.get("kind"), str):
                    given = "missing" if kind is None else repr(kind)
                    raise ValueError(f"{part}.kind is {given}; expected a name of your own")
                if name is not None and not isinstance(name, str):
                    raise ValueError(f"{part}.from is {name!r}; expected the path of a Python file")
                file = None if name is None else folder / name
                table[part] = own(part, kind, settings, file).model_dump(mode="json")
            except ValueError as error:
                place = f"variant {table['name']!r}: " if "name" in table else "model: "
                raise ValueError(place + str(error)) from None
    return data


def module_of(named: Own, part: Part, place: str = "") -> ModuleType:
    """Return the module of a variant of one's own, run once in a process.

    Raises:
        ValueError: its text is not known here, does not run, lacks something, or is not of `part`;
            the message begins with `place`, or its kind.
    """
    return _module(named.kind, named.source, part, quoted(place or named.kind))


@lru_cache(maxsize=256)
def _module(kind: str, source: str | None, part: Part, place: str) -> ModuleType:
    if source is None:
        if kind not in BUILT_IN:
            raise ValueError(f"{part}.kind is {kind!r}, which this version does not know")
        module = import_module(f"isoflop.variants.{kind}")
    elif source not in _TEXTS:
        raise ValueError(
            f"{part} {kind!r} needs its Python file, whose text (SHA-256 "
            f"{source[:12]}) is not at hand; name the file in the study with `from`"
        )
    else:
        module = _run(source, place)
    wanted = ("PART", "Config", "build", "costs", *(("processed",) if part == "depth" else ()))
    lacking = [name for name in wanted if not hasattr(module, name)]
    if lacking:
        raise ValueError(f"{place}: lacks `{lacking[0]}`; expected {', '.join(wanted)}")
    if part != module.PART:
        raise ValueError(
            f"{place}: its PART is {module.PART!r}, but it is named as {part}; expected the same"
        )
    if not (isinstance(module.Config, type) and issubclass(module.Config, Frozen)):
        raise ValueError(f"{place}: its Config is no subclass of isoflop.variants.Frozen")
    if not module.Config.__pydantic_complete__:
        raise ValueError(f"{place}: the type of a field of Config is no name in it; import it")
    known, told = get_args(Decision), getattr(module, "DECISIONS", ("every_token",))
    fits = isinstance(told, (tuple, list)) and all(one in known for one in told)
    if not fits or not told or told[0] == "top_k":
        said = f"expected some of {', '.join(known)}, a causal one first"
        raise ValueError(f"{place}: its DECISIONS is {told!r}; {said}")
    return module


@lru_cache(maxsize=256)
def config_of(named: Own, part: Part) -> Frozen:
    """Return the settings of a variant of one's own, defaults filled in. Raises as `module_of`."""
    config: Frozen = module_of(named, part).Config.model_validate(named.settings)
    return config


def _run(source: str, place: str) -> ModuleType:
    """Run a text as a module of its own."""
    text, name = _TEXTS[source], f"{_MODULE}{source[:16]}"
    file = f"<{place}>"
    # Both for tracebacks and for who looks at its classes: nothing is read from the file again.
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    try:
        exec(compile(text, file, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{place}: does not run{fault(error)}") from None
    if len(re.findall(r"(?m)^PART\b\s*[:=]", text)) > 1:
        raise ValueError(f"{place}: PART is set twice; expected one variant in a file")
    return module


def fault(error: BaseException) -> str:
    """Return an error in words, after the line of the variant's file that it is from."""
    trace, line = error.__traceback__, getattr(error, "lineno", None)
    while trace is not None:
        ours = str(trace.tb_frame.f_globals.get("__name__")).startswith(_MODULE)
        line, trace = trace.tb_lineno if ours else line, trace.tb_next
    what = error.msg if isinstance(error, SyntaxError) else error
    if isinstance(error, ValidationError):
        (first, *_) = error.errors(include_url=False)
        place = ".".join(map(str, (error.title, *first["loc"])))
        what = f"{place} is {first['input']!r}. {first['msg']}"
    said = " ".join(f"{type(error).__name__}: {what}".split())[:300]
    if isinstance(error, ModuleNotFoundError) and error.name:
        said += "; a variant is one file: what it imports has to be installed where isoflop is"
    return f"{'' if line is None else f' (line {line})'}: {said}"


def _is_own(part: Part, table: dict[str, Any]) -> bool:
    """Return whether a table has to be opened; not where it was, as in `study.json`."""
    if "settings" in table or "source" in table:
        return False
    if part == "block" or "from" in table:
        return True
    kind = table.get("kind", "")
    named = isinstance(kind, str) and kind not in SHIPPED
    return named and (kind in BUILT_IN or bool(_entry(kind)))


def _entry(kind: str) -> str | None:
    """Return the module that an installed package has for a kind."""
    found = entry_points(group=ENTRY_POINTS)
    return found[kind].module if kind in found.names else None


def _text(kind: str, file: Path | None) -> str:
    if file is None:
        module = _entry(kind)
        spec = None if module is None else find_spec(module)
        if spec is None or spec.origin is None:
            raise ValueError(f"kind is {kind!r}, of which no installed package has a module")
        file = Path(spec.origin)
    try:
        hint = "`from` is relative to the study's folder"
        return re.sub("\r\n?", "\n", file_text(file, expected="Python", hint=hint))
    except ValueError as error:
        raise ValueError(f"{quoted(str(file))}: {error}") from None
