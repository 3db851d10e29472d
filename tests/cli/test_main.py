"""Dispatch and errors: exit codes, one line for what a user can mend, quick start-up."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from isoflop.cli import main
from isoflop.cli.commands import COMMANDS, USES
from isoflop.runs import RunClaimed
from isoflop.storage import StorageError
from isoflop.version import __version__

_RUN = "import sys; from isoflop.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def raising(monkeypatch):
    """Make every loaded study raise what is asked for."""

    def install(error):
        def load(path):
            raise error

        monkeypatch.setattr("isoflop.cli.study.load", load)

    return install


def one_line(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("isoflop: ")
    return captured.err.removeprefix("isoflop: ").strip()


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"isoflop {__version__}\n"


def test_a_bad_study_is_one_line_and_exit_code_two(tmp_path, capsys):
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\nbudgets_flops = [1e12]\n[[variants]]\nname = "a"\n'
        'depth = { kind = "top_k", capacity = 1.5 }\n'
    )
    assert main(["costs", str(path)]) == 2
    assert one_line(capsys) == (
        f"{path}: variants[0].depth.capacity is 1.5; expected a number in (0, 1]"
    )


FULL = OSError(28, "No space left on device")
TORCH = ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("width is 3; expected an even number"), 2, "width is 3; expected"),
        (ValueError("several\nlines\x1b[31m"), 2, r"several lines\x1b[31m"),
        (RunClaimed("another process is working on it"), 1, "another process"),
        (FULL, 1, "No space left on device"),
        (StorageError(Path("a"), FULL), 1, "bytes free"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (TORCH, 2, 'torch is not installed, which this needs: pip install "isoflop[train]"'),
    ],
)
def test_known_errors_are_one_line(raising, capsys, error, code, told):
    raising(error)
    assert main(["costs", "s.toml"]) == code
    assert told in one_line(capsys)


@pytest.mark.parametrize(
    ("error", "debug"),
    [
        (KeyError("a bug"), ""),
        (ModuleNotFoundError("No module named 'isoflop.made'", name="isoflop.made"), ""),
        (ValueError("wrong"), "1"),
    ],
)
def test_bugs_keep_their_traceback_and_all_do_when_debugging(raising, monkeypatch, error, debug):
    monkeypatch.setenv("ISOFLOP_DEBUG", debug)
    raising(error)
    with pytest.raises(type(error)):
        main(["costs", "s.toml"])


@pytest.mark.parametrize(
    "arguments", [["costs"], ["costs", "s.toml", "--jsn"], ["bench"], ["bench", "trian"]]
)
def test_usage_errors_have_exit_code_two_and_name_the_help(arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert f"isoflop {arguments[0]} --help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("cost", "did you mean `isoflop costs`?"),
        ("predct", "did you mean `isoflop predict`?"),
        ("runs.csv", "did you mean `isoflop fit runs.csv`?"),
        ("mine.toml", "did you mean `isoflop plan mine.toml`?"),
        ("--verbose", "`isoflop --help` lists them"),
        ("xyzzy\n", "`isoflop --help` lists them"),
    ],
)
def test_a_mistyped_command_is_one_line_with_a_suggestion(typed, hint, capsys):
    assert main([typed, "s.toml"]) == 2
    assert one_line(capsys) == f"{typed!r} is no command; {hint}"


def test_without_arguments_it_says_what_to_type_for_each_use(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") < 24
    for title in USES:
        (line,) = (line for line in shown.splitlines() if line.startswith(f"  {title} "))
        assert "isoflop " in line


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_subcommand_under_its_use(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for title, commands in USES.items():
        block = shown.split(f"\n{title}\n")[1].split("\n\n")[0]
        assert [line.split()[0] for line in block.splitlines()] == [one.name for one in commands]


LOADED = """
import sys
from isoflop.cli import main
for typed in sys.argv[1:]:
    try:
        main(typed.split())
    except SystemExit:
        pass
    print("loaded:", *sys.modules, flush=True)
"""


def test_start_up_loads_no_more_than_a_command_needs():
    """One process for all: what one of the commands loads stays loaded."""
    typed = ("", "--help", "--version", "fit --help", "costs missing.toml", "cots")
    shown = subprocess.run(
        [sys.executable, "-c", LOADED, *typed], capture_output=True, text=True, check=True
    ).stdout
    told = [line.split() for line in shown.splitlines() if line.startswith("loaded:")]
    assert len(told) == len(typed)
    assert not {"tyro", "pydantic", "isoflop.config"} & {*told[1]}
    assert not {"torch", "pandas", "scipy", "altair"} & {*told[-1]}
    assert "pydantic" in told[-1]


def test_a_closed_pipe_is_no_error(tmp_path):
    study = tmp_path / "s.toml"
    subprocess.run([sys.executable, "-c", _RUN, "init", str(study)], check=True)
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-c", _RUN, "costs", str(study), "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert result.stderr == ""


COMPLETED = """
source "$1"
complete -p isoflop
for line in "wat" "watch s --po" "bench att" "export s --data"; do
  COMP_WORDS=(isoflop $line) COMP_LINE="isoflop $line" COMP_POINT=${#COMP_LINE}
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _tyro_isoflop
  echo "${COMPREPLY[@]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_shell_completes_what_is_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert main(["--install-completion"]) == 0
    path = tmp_path / "bash-completion/completions/isoflop"
    assert capsys.readouterr().out.startswith(f"wrote {path}; a new shell has it")
    shown = subprocess.run(
        ["bash", "-c", COMPLETED, "-", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert shown.splitlines() == [
        "complete -o default -F _tyro_isoflop isoflop",
        "watch",
        "--port",
        "attention",
        "--dataset",
    ]
    assert main(["--install-completion", "tcsh"]) == 2
    assert one_line(capsys) == "completes no 'tcsh'; expected one of bash, zsh, fish"


def test_the_environment_is_listed_with_what_it_lacks(monkeypatch, capsys):
    needed = ["numpy>=1", 'pyarrow>=15; extra == "parquet"', "made-up>=2; extra == 'made'"]
    needed.append("lm-eval>=0.4; extra == 'harness'")
    here = [*metadata.distributions(), SimpleNamespace(name="lm_eval", version="0.4.13")]
    monkeypatch.setattr(metadata, "distributions", lambda: here)
    monkeypatch.setattr(metadata, "requires", lambda _: needed)
    assert main(["check", "--environment", "--json"]) == 0
    parts = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"Python", "processor", "torch", "GPU"} < set(parts)
    assert parts["extra parquet"]["found"].startswith("pyarrow ")
    assert parts["extra harness"]["found"] == "lm-eval 0.4.13"
    assert parts["extra made"] == {
        "name": "extra made",
        "found": None,
        "hint": 'lacks made-up: pip install "isoflop[made]"',
    }
    assert main(["check", "--environment"]) == 0
    assert '--  extra made: lacks made-up: pip install "isoflop[made]"' in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_help(name, capsys):
    shown = set()
    for arguments in ([name, "--help"], ["help", name]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        shown.add(capsys.readouterr().out)
    assert len(shown) == 1
    assert f"usage: isoflop {name} " in shown.pop()
