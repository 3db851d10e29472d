"""`python -m isoflop.cli`: the command line, where no script of that name is at hand."""

import sys

from isoflop.cli import main

if __name__ == "__main__":
    sys.exit(main())
