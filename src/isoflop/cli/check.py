"""The subcommand that tells whether isoflop, or a variant of one's own, computes right here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from isoflop.cli.options import Device, Json
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.config import Choices, Precision


def check(
    file: Annotated[
        Path | None,
        Positional,
        arg(metavar="[FILE|STUDY]", help="A variant of your own, or a study with some."),
    ] = None,
    device: Annotated[Device, arg(help="What to check.")] = "cpu",
    environment: Annotated[
        bool, arg(help="Only list what is installed, what is missing and how to get it.")
    ] = False,
    json: Json = False,
) -> int:
    """Compare every part with an obvious one on this machine; two minutes at most.

    With a file, judge a variant of your own in its place: costs, gradients, later tokens, sizes,
    decoding. Settings are the defaults of its Config, or those that a study gives.
    """
    if environment:
        return _environment(json)
    from isoflop.bench.machine import check_device
    from isoflop.check import every_check, outcomes, own_checks
    from isoflop.terminal.check import outcome_lines, summary
    from isoflop.terminal.tables import show_json

    judged = {} if file is None else dict(_variants(file))
    check_device(device)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    found = []
    for name, choices in judged.items() or (("", None),):
        if len(judged) > 1 and not json:
            print(quoted(name))
        checks = every_check(device) if choices is None else own_checks(choices)
        for outcome in outcomes(checks, device, precisions):
            found.append(outcome)
            if not json:
                for line in outcome_lines(outcome):
                    print(quoted(line), flush=True)
    passed = all(outcome.passed for outcome in found)
    if json:
        show_json([outcome.model_dump(mode="json") for outcome in found])
    else:
        print(quoted(summary(found)))
        if passed and file is not None and file.suffix == ".py":
            ((part, named),) = judged[file.name].own.items()
            print(quoted(f'in a study: {part} = {{ kind = "{named.kind}", from = "{file}" }}'))
    return 0 if passed else 1


def _environment(json: bool) -> int:
    from isoflop.hardware.installed import parts
    from isoflop.terminal.tables import answer, said

    found = list(parts())
    lines = [f"{'ok' if one.found else '--'}  {one.name}: {one.found or one.hint}" for one in found]
    answer([one.model_dump(mode="json") for one in found], map(said, lines), json=json)
    return 0


def _variants(file: Path) -> Iterator[tuple[str, Choices]]:
    """Yield the variants of one's own in a file by name: its own, or those of a study."""
    from isoflop.config import Choices
    from isoflop.config.load import load_study
    from isoflop.config.own import of_file

    if file.suffix == ".py":
        part, named = of_file(file)
        yield file.name, Choices(**{part: named})
        return
    variants = [one for one in load_study(file).variants if one.own]
    if not variants:
        raise ValueError(
            f"{file} has no variant of your own; expected one with `from`, or a Python file"
        )
    for one in variants:
        yield one.name, one.choices
