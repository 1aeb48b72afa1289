"""`python -m ftlab` is the command `ftlab`, for launchers that start a module."""

import sys

from ftlab.cli import main

sys.exit(main())
