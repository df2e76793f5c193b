"""`python -m securelink` is the command `securelink`."""

import sys

from securelink.cli import main

if __name__ == "__main__":
    sys.exit(main())
