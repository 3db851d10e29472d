"""The command line: one class per subcommand, whose fields are its options."""

from isoflop.cli.main import main
