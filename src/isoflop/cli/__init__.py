"""The command line: one thin function per subcommand."""

from isoflop.cli.main import main
