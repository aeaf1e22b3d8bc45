"""``python -m fedrax``: the command line."""

import sys

from fedrax.cli import main

if __name__ == "__main__":
    sys.exit(main())
