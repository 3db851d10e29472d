"""Whether isoflop computes right on the machine at hand: each part against an obvious one."""

from isoflop.check.comparing import Check, Found, Outcome, Place, outcomes


def every_check(device: str) -> tuple[Check, ...]:
    """Return the checks that there are, in the order in which they are made."""
    from isoflop.check import machine, operators, runs, steps

    return (
        *operators.CHECKS,
        *steps.checks(device),
        *runs.CHECKS,
        *machine.CHECKS,
    )
