"""Every `isoflop ...` that the documents, the greeting or a starter show can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from isoflop.cli import main
from isoflop.cli.commands import COMMANDS, GREETING, command_named
from isoflop.cli.main import parsed
from isoflop.cli.study import starter_text

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/README.md"]
PAST = {ROOT / "docs" / "LOG.md"}
NUMBERS = {"FLOPS": "1e21", "GIB": "8", "MIN": "10", "INT": "2"}
"""What stands for a number in a document; any other name in capitals can be typed as it is."""


def shown_commands(text):
    """Return what a document shows as typed: between backticks, indented or fenced."""
    text = re.sub(r"\\\n\s*", "", text)  # lines that go on
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    lines = [line.strip() for line in text.splitlines() if re.match(r" {2,}|isoflop ", line)]
    lines = [re.sub(r"\s+#.*|\s{2,}\S.*| &$", "", line) for line in lines]
    typed = [part.strip() for piece in spans + lines for part in piece.split("&&")]
    found = (re.sub(r"[\[\]]", "", part) for part in typed if part.startswith("isoflop "))
    return sorted({part for part in found if "..." not in part and "COMMAND" not in part})


SHOWN = [
    pytest.param(command, id=f"{path.name}: {command}")
    for path in DOCUMENTS
    if path not in PAST
    for command in shown_commands(path.read_text(encoding="utf-8"))
]


def types(command, capsys):
    """Return the exit code of reading a command without doing it, and what is said."""
    name, *arguments = [NUMBERS.get(word, word) for word in shlex.split(command)[1:]]
    try:
        parsed(command_named(name), arguments)
        code = 0
    except ValueError as refused:
        return 2, str(refused)
    except SystemExit as exited:
        code = exited.code
    return code, capsys.readouterr().err


def is_name(command):
    return command.removeprefix("isoflop ") in COMMANDS


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_a_document_shows_can_be_typed(command, capsys):
    # Of what comes before any command `test_main` knows.
    if not is_name(command) and not command.startswith("isoflop --"):
        assert types(command, capsys) == (0, "")


@pytest.mark.parametrize("text", [GREETING, starter_text()], ids=["greeting", "starter"])
def test_what_a_newcomer_is_told_to_type_can_be_typed(text, capsys):
    commands = shown_commands(text.replace("#", " "))
    commands += re.findall(r"isoflop \w+ (?:--\w+ )?\S+", text)
    assert len(commands) >= 3
    for command in commands:
        assert types(command.rstrip("."), capsys) == (0, ""), command


def test_the_readme_shows_every_command():
    shown = {command.split()[1] for command in shown_commands((ROOT / "README.md").read_text())}
    assert shown >= set(COMMANDS)


def test_the_options_that_the_readme_names_exist(capsys):
    named = set(re.findall(r"--[a-z][\w-]+", (ROOT / "README.md").read_text(encoding="utf-8")))
    main(["--help"])
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
    assert named <= set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out))


@pytest.mark.parametrize("wrong", ["isoflop predct x", "isoflop fit", "isoflop fit x --nothing 1"])
def test_a_command_that_cannot_be_typed_is_noticed(wrong, capsys):
    assert shown_commands(f"so `{wrong}` it says") == [wrong]
    assert types(wrong, capsys)[0] == 2


def links(path):
    """Return the files that a document links to or shows."""
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    return [target for target in found if "://" not in target]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_document_links_to_are_there(path):
    gone = [target for target in links(path) if not (path.parent / target).exists()]
    assert not gone


def test_the_readme_is_read_at_one_sitting():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
