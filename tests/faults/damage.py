"""Ways in which a file goes bad: bytes of it, or values in the JSON that it holds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JUNK = (
    None,
    True,
    0,
    -1,
    0.5,
    1e308,
    -1e308,
    10**30,
    10**400,
    "",
    "x",
    "\x1b[31m\u202e=cmd()",
    "../../x",
    [],
    {},
    [None],
    ["a", "a"],
    {"a": 1},
    "DEEP",
)
"""Values that are put in place of others; DEEP becomes a list in a list in a list ..."""
DEEP = "[" * 900 + "]" * 900


def damaged_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return `data` with bytes changed, cut off, put in, or replaced altogether."""
    content = bytearray(data)
    match draw.randrange(6):
        case 0:
            for _ in range(draw.choice((1, 1, 20))):
                if content:
                    content[draw.randrange(len(content))] = draw.randrange(256)
        case 1:
            del content[draw.randrange(len(content) + 1) :]
        case 2:
            at = draw.randrange(len(content) + 1)
            content[at:at] = draw.choice((b"\0", b"\xff\xfe", b"\n", b'"', b"NaN", b"1e999", b"{"))
        case 3:
            content = bytearray(draw.randbytes(draw.randrange(200)))
        case 4:
            begin = draw.randrange(len(content) + 1)
            del content[begin : begin + draw.randrange(1, 50)]
        case _:
            content += bytes(content)
    return bytes(content)


def damaged_value(value: Any, draw: random.Random) -> Any:
    """Return JSON data with one value in it replaced, removed, repeated or put under another key.

    What is replaced lies at any depth with equal chance.
    """
    value = json.loads(json.dumps(value))
    depths: dict[int, list[tuple[Any, Any]]] = {}
    for depth, place in _places(value, 0):
        depths.setdefault(depth, []).append(place)
    if not depths:
        return draw.choice(JUNK)
    holder, key = draw.choice(depths[draw.choice(sorted(depths))])
    match draw.randrange(6):
        case 0 if isinstance(holder, dict):
            holder["unknown" + "\x1b" * draw.randrange(2)] = holder.pop(key)
        case 1:
            del holder[key]
        case 2 if isinstance(holder, list):
            holder.append(holder[key])
        case 3 if isinstance(holder[key], int | float) and 0 < abs(holder[key]) < 1e200:
            holder[key] = draw.choice((-holder[key], 0, holder[key] * 1e9, holder[key] / 1e9, 1e40))
        case _:
            holder[key] = draw.choice(JUNK)
    return value


def to_json(value: Any) -> str:
    """Return damaged data as JSON, the values that stand for nested ones put in."""
    return json.dumps(value).replace('"DEEP"', DEEP)


def damage_file(path: Path, draw: random.Random) -> None:
    """Damage a file in place; one of JSON or of JSON lines mostly by its values."""
    data = path.read_bytes()
    if path.suffix not in (".json", ".jsonl") or draw.random() < 0.35:
        path.write_bytes(damaged_bytes(data, draw))
    elif path.suffix == ".json":
        path.write_text(to_json(damaged_value(json.loads(data), draw)))
    else:
        lines = data.decode().splitlines()
        at = draw.randrange(len(lines))
        lines[at] = to_json(damaged_value(json.loads(lines[at]), draw))
        path.write_text("\n".join(lines) + "\n")


def _places(value: Any, depth: int) -> Iterator[tuple[int, tuple[Any, Any]]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(pairs) if isinstance(value, dict | list) else ():
        yield depth, (value, key)
        if isinstance(item, dict | list):
            yield from _places(item, depth + 1)
