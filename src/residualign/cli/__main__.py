"""`python -m residualign.cli` is the command `residualign`."""

import sys

from residualign.cli import main

if __name__ == "__main__":
    sys.exit(main())
