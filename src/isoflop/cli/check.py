"""The subcommand that tells whether isoflop computes right on the machine at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from isoflop.cli.options import Device, Json
from isoflop.text import quoted

if TYPE_CHECKING:
    from isoflop.config import Precision


def check(
    device: Annotated[Device, arg(help="What to check.")] = "cpu",
    json: Json = False,
) -> int:
    """Compare every part with an obvious one on this machine; two minutes at most."""
    from isoflop.bench.machine import check_device
    from isoflop.check import every_check, outcomes
    from isoflop.terminal.check import outcome_lines, summary
    from isoflop.terminal.tables import show_json

    check_device(device)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    found = []
    for outcome in outcomes(every_check(device), device, precisions):
        found.append(outcome)
        if not json:
            for line in outcome_lines(outcome):
                print(quoted(line), flush=True)
    if json:
        show_json([outcome.model_dump(mode="json") for outcome in found])
    else:
        print(quoted(summary(found)))
    return 0 if all(outcome.passed for outcome in found) else 1
