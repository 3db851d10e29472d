"""Whether isoflop computes right on the machine at hand: each part against an obvious one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoflop.check.comparing import Check, Found, Outcome, Place, outcomes

if TYPE_CHECKING:
    from isoflop.config import Choices


def every_check(device: str) -> tuple[Check, ...]:
    """Return the checks that there are, in the order in which they are made."""
    from isoflop.check import machine, operators, runs, steps

    return (
        *operators.CHECKS,
        *steps.checks(device),
        *runs.CHECKS,
        *machine.CHECKS,
    )


def own_checks(choices: Choices) -> tuple[Check, ...]:
    """Return the checks of models of these choices, something of one's own among them."""
    from isoflop.check import own

    return own.checks(choices)
