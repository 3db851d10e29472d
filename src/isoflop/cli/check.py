"""The subcommand that tells whether isoflop, or a variant of one's own, computes right here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from isoflop.cli.options import Device, Json
from isoflop.terminal.tables import amount, answer, said, show_json
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.check import Outcome
    from isoflop.config import Choices, Precision


@dataclass(frozen=True, kw_only=True)
class Check:
    """Compare every part with an obvious one on this machine; two minutes at most.

    With a file, judge a variant of your own in its place: costs, gradients, later tokens, sizes,
    decoding. Settings are the defaults of its Config, or those that a study gives.
    """

    file: Annotated[Path | None, Positional, arg(metavar="[FILE|STUDY]")] = None
    """A variant of your own, or a study with some."""
    device: Annotated[Device, arg(help="What to check.")] = "cpu"
    environment: bool = False
    """Only list what is installed, what is missing and how to get it."""
    json: Json = False

    def __call__(self) -> int:
        if self.environment:
            from isoflop.hardware.installed import parts

            found = list(parts())
            lines = [
                f"{'ok' if one.found else '--'}  {one.name}: {one.found or one.hint}"
                for one in found
            ]
            answer(found, map(said, lines), json=self.json)
            return 0
        from isoflop.bench.machine import check_device
        from isoflop.check import every_check, outcomes, own_checks

        judged = {} if self.file is None else dict(_variants(self.file))
        check_device(self.device)
        precisions: tuple[Precision, ...] = ("fp32", "bf16")
        made = []
        for name, choices in judged.items() or (("", None),):
            if len(judged) > 1 and not self.json:
                print(quoted(name))
            checks = every_check(self.device) if choices is None else own_checks(choices)
            left = dict.fromkeys(check.name for check in checks)
            for outcome in outcomes(checks, self.device, precisions):
                made.append(outcome)
                left.pop(outcome.name, None)
                if not self.json:
                    for line in outcome_lines(outcome):
                        print(quoted(line), flush=True)
            if left and not self.json:
                print(quoted(f"      not made: {', '.join(left)}"))
        passed = all(outcome.passed for outcome in made)
        if self.json:
            show_json(made)
        else:
            print(quoted(summary(made)))
            if passed and self.file is not None and self.file.suffix == ".py":
                ((part, named),) = judged[self.file.name].own.items()
                told = f'{part} = {{ kind = "{named.kind}", from = "{self.file}" }}'
                print(quoted(f"in a study: {told}"))
        return 0 if passed else 1


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


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """Yield how a check went, and what to do where it failed."""
    name = outcome.name if outcome.precision is None else f"{outcome.name}, {outcome.precision}"
    parts = [outcome.compared]
    if outcome.difference is not None and outcome.tolerance is not None:
        parts.append(f"apart by {outcome.difference:.1e}, at most {outcome.tolerance:.1e}")
    if outcome.note:
        parts.append(outcome.note)
    state = "ok  " if outcome.passed else "FAIL"
    yield f"{state}  {name}: {'; '.join(parts)} ({amount(outcome.seconds)})"
    if outcome.hint:
        yield f"      {outcome.hint}"


def summary(found: Sequence[Outcome]) -> str:
    """Return how many checks passed, and how long they took."""
    failed = sum(not outcome.passed for outcome in found)
    told = "all passed" if not failed else f"{failed} FAILED"
    seconds = sum(outcome.seconds for outcome in found)
    return f"{len(found)} checks in {amount(seconds)}: {told}"
