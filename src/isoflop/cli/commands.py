"""The subcommands, in the order of `isoflop --help`: by what somebody has who comes to use them.

This table is all that the help and the dispatch know. It names functions and does not import them,
so that a greeting, a help or a mistyped name is answered at once; a command loads its own module
alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tyro.extras import SubcommandApp


@dataclass(frozen=True)
class Command:
    """A subcommand: what is typed, where its function is, and what it does."""

    name: str
    home: str
    """`module.function` below `isoflop.cli`; the function may be commands of its own."""
    does: str
    """One line for the list of all commands; its own help is its function's docstring."""

    def load(self) -> Callable[..., object] | SubcommandApp:
        """Return the function whose signature is the command line, or its own subcommands."""
        module, _, function = self.home.partition(".")
        found: Callable[..., object] | SubcommandApp = getattr(
            import_module(f"isoflop.cli.{module}"), function
        )
        return found


@dataclass(frozen=True)
class Use:
    """What somebody has, and the commands that serve it."""

    title: str
    commands: tuple[Command, ...]


USES = (
    Use(
        "A table of finished runs",
        (
            Command("fit", "fit_commands.fit", "minima, scaling law and verdict, with intervals"),
            Command(
                "predict",
                "fit_commands.predict",
                "size, tokens and loss at a budget not trained yet",
            ),
        ),
    ),
    Use(
        "Text and a laptop",
        (
            Command("init", "study_commands.init", "write a commented study to start from"),
            Command("plan", "study_commands.plan", "list its runs and the time that they take"),
            Command("run", "study_commands.run", "train them; after Ctrl-C, again to go on"),
            Command("status", "study_commands.status", "how far they are, and which failed"),
            Command("report", "study_commands.report", "figures and one page from what is done"),
            Command("eval", "model_commands.evaluate", "loss of one model by routing decision"),
            Command("sample", "model_commands.sample", "text that one model writes"),
        ),
    ),
    Use(
        "A GPU or a cluster",
        (
            Command("train", "model_commands.train", "train a single run, as a job of its own"),
            Command("export", "study_commands.export", "records and figures, to share or commit"),
            Command("rebuild", "study_commands.rebuild", "train the best models of records again"),
            Command("clean", "study_commands.clean", "free disk; records and metrics stay"),
        ),
    ),
    Use(
        "An idea of your own",
        (
            Command(
                "costs", "study_commands.costs", "parameters, FLOPs and cache bytes of variants"
            ),
            Command(
                "search", "study_commands.search", "try recipes, equally many for every variant"
            ),
            Command("bench", "bench_commands.bench", "how fast it steps and fits on this machine"),
        ),
    ),
)

COMMANDS = {command.name: command for use in USES for command in use.commands}


def command_named(name: str) -> Command:
    """Return the command of that name.

    Raises:
        ValueError: there is none; the message says which one may be meant.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    if near:
        raise ValueError(f"{name!r} is no command; did you mean `isoflop {near[0]}`?")
    if PurePath(name).suffix and not name.startswith("-"):
        meant = "plan" if name.endswith(".toml") else "fit"
        raise ValueError(f"{name!r} is no command; did you mean `isoflop {meant} {name}`?")
    raise ValueError(f"{name!r} is no command; `isoflop --help` lists them")
