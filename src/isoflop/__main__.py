"""`python -m isoflop`, which is what torchrun starts; the same as `isoflop`."""

import sys

from isoflop.cli import main

if __name__ == "__main__":
    sys.exit(main())
