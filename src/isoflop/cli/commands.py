"""The subcommands, in the order of `isoflop --help`: by what somebody has who comes to use them.

This table is all that the help and the dispatch know. It names classes and does not import them,
so that a greeting, a help or a mistyped name is answered at once; a command loads its own module
alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from isoflop.text import typed

if TYPE_CHECKING:
    from tyro.extras import SubcommandApp


class Command(NamedTuple):
    """A subcommand: what is typed, where its class is, and what it does."""

    name: str
    home: str
    """`module.Class` below `isoflop.cli`; in place of a class there may be commands of its own.
    Empty where it stands elsewhere."""
    does: str
    """One line for the list of all commands; its own help is its class's docstring."""

    def load(self) -> Callable[..., object] | SubcommandApp:
        """Return the class whose fields are the command line, or its own subcommands."""
        module, _, name = self.home.partition(".")
        found = getattr(import_module(f"isoflop.cli.{module}"), name)
        return cast("Callable[..., object]", found)


USES = {
    "A table of finished runs": (
        Command("fit", "fit.Fit", "minima, scaling law and verdict, with intervals"),
        Command("predict", "fit.Predict", "size, tokens and loss at a budget not trained yet"),
    ),
    "Text and a laptop": (
        Command("init", "study.Init", "write a commented study to start from"),
        Command("plan", "study.Plan", "list its runs and the time that they take"),
        Command("run", "study.Run", "train them; after Ctrl-C, again to go on"),
        Command("status", "watching.Status", "how far they are, and which failed"),
        Command("watch", "watching.Watch", "a page of it while it is trained"),
        Command("report", "study.Report", "figures and one page from what is done"),
        Command("eval", "model.Evaluate", "loss of one model by routing decision"),
        Command("sample", "model.Sample", "text that one model writes"),
        Command("convert", "model.Convert", "one model to transformers, or from there"),
    ),
    "A GPU or a cluster": (
        Command("check", "check.Check", "whether all computes right on this machine"),
        Command("train", "train.Train", "train a single run, as a job of its own"),
        Command("work", "study.Work", "take runs of a study that other machines train, too"),
        Command("logs", "watching.Logs", "what one run printed, found by its id"),
        Command("export", "study.Export", "records and figures, to share or commit"),
        Command("rebuild", "study.Rebuild", "train the best models of records again"),
        Command("clean", "study.Clean", "free disk; records and metrics stay"),
    ),
    "An idea of your own": (
        Command("init", "", "--variant FILE: write one in a Python file, to start from"),
        Command("check", "", "FILE: whether its costs and its code hold"),
        Command("costs", "study.Costs", "parameters, FLOPs and cache bytes of variants"),
        Command("search", "study.Search", "try recipes, equally many for every variant"),
        Command("bench", "bench.bench", "how fast it steps and fits on this machine"),
    ),
}
"""By what somebody has: the commands that serve it."""

COMMANDS = {one.name: one for commands in USES.values() for one in commands if one.home}


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
        raise ValueError(f"{name!r} is no command; did you mean `{typed(meant, name)}`?")
    raise ValueError(f"{name!r} is no command; `isoflop --help` lists them")


def install_completion(shell: str) -> str:
    """Have a shell complete commands, options and files; return what is left to do, in words.

    Raises:
        ValueError: it is none of bash, zsh and fish.
    """
    import io
    import os
    from contextlib import redirect_stdout, suppress

    import tyro

    from isoflop import storage

    if shell not in COMPLETIONS:
        raise ValueError(f"completes no {shell!r}; expected one of {', '.join(COMPLETIONS)}")
    app: Any = tyro.extras.SubcommandApp()
    for one in COMMANDS.values():
        app.command(one.load(), name=one.name, help=one.does)
    with redirect_stdout(io.StringIO()) as said, suppress(SystemExit):
        config = (tyro.conf.FlagCreatePairsOff,)
        app.cli(prog="isoflop", args=["--tyro-print-completion", shell], config=config)
    variable, usual, file, hint = COMPLETIONS[shell]
    path = Path(os.environ.get(variable) or Path.home() / usual) / file
    # Where nothing of ours fits, files do.
    text = said.getvalue().replace("complete -F", "complete -o default -F")
    storage.write_text(path, text)
    return f"wrote {path}; {hint.format(path=path)}"


DATA, NEW = ("XDG_DATA_HOME", ".local/share"), "a new shell has it"
WITHOUT = "; without the package bash-completion, add to ~/.bashrc: source {path}"
ZSH_PATH = "add to ~/.zshrc, before compinit: fpath+=({path.parent})"
COMPLETIONS = {
    "bash": (*DATA, "bash-completion/completions/isoflop", NEW + WITHOUT),
    "zsh": (*DATA, "zsh/site-functions/_isoflop", ZSH_PATH),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/isoflop.fish", NEW),
}
"""By shell: the variable and the folder below home that its files lie in, the file, what to do."""

QUESTION = """\
At the same compute, which transformer variant wins,
by how much, and how sure are we?"""

GREETING = f"""\
{QUESTION}

What do you have?

  A table of finished runs   isoflop fit runs.csv
  Text and a laptop          isoflop init        then: isoflop plan study.toml
  A GPU or a cluster         isoflop check --device cuda   then: isoflop plan study.toml
  An idea of your own        isoflop init --variant my.py   then: isoflop check my.py

All commands: isoflop --help. What one takes: isoflop fit --help.
"""
"""Shown where nothing was typed but `isoflop`: one line to start from for each use."""


def help_text() -> str:
    """Return the list of all commands by use, for a terminal of 80 columns."""
    width = max(map(len, COMMANDS))
    lines = ["usage: isoflop COMMAND ...", "", QUESTION]
    for title, commands in USES.items():
        lines += ["", title, *(f"  {one.name:{width}}  {one.does}" for one in commands)]
    lines += ["", "isoflop COMMAND --help tells what it takes; isoflop --version, which this is;"]
    lines += ["isoflop --install-completion [bash|zsh|fish] has the shell complete all of it."]
    return "\n".join(lines)
