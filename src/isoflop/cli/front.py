"""What is shown to somebody who has not named a command: a greeting, and the list of all."""

from __future__ import annotations

from isoflop.cli.commands import COMMANDS, USES

QUESTION = """\
At the same compute, which transformer variant wins,
by how much, and how sure are we?"""

GREETING = f"""\
{QUESTION}

What do you have?

  A table of finished runs   isoflop fit runs.csv
  Text and a laptop          isoflop init        then: isoflop plan study.toml
  A GPU or a cluster         isoflop plan study.toml --accelerator h100-sxm
  An idea of your own        isoflop costs study.toml

All commands: isoflop --help. What one takes: isoflop fit --help.
"""
"""Shown where nothing was typed but `isoflop`: one line to start from for each use."""


def help_text() -> str:
    """Return the list of all commands by use, for a terminal of 80 columns."""
    width = max(map(len, COMMANDS))
    lines = ["usage: isoflop COMMAND ...", "", QUESTION]
    for use in USES:
        lines += ["", use.title]
        lines += [f"  {command.name:{width}}  {command.does}" for command in use.commands]
    lines += ["", "isoflop COMMAND --help tells what it takes; isoflop --version, which this is."]
    return "\n".join(lines)
